"""Entry point of `lit-attr`: finds the command, and imports only what that command needs."""

import gc
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from lit_attr._version import __version__
from lit_attr.errors import LitAttrError

# Command to the module whose `run(arguments)` does it, and one line of help.
_COMMANDS = {
    "predict": ("lit_attr.cli.predict", "harvest dataset attributions of a decomposition run"),
    "merge": ("lit_attr.cli.merge", "merge the parts of independent workers into one result"),
    "status": ("lit_attr.cli.status", "how far a running harvest is, across its workers"),
    "verify": ("lit_attr.cli.verify", "check a stored result: digest, shapes, finiteness, coverage"),
    "query": ("lit_attr.cli.query", "ask a stored harvest: sources, targets, edges, layers, subgraphs"),
    "index": ("lit_attr.cli.index", "make questions to a large stored harvest fast"),
    "export": ("lit_attr.cli.export", "write a stored harvest as safetensors, parquet or GraphML, or log it to wandb"),
    "plot": ("lit_attr.cli.plot", "draw a stored harvest: edge mass, a component, a subgraph, stability"),
    "view": ("lit_attr.cli.view", "show a stored harvest as a page in the browser"),
    "submit": ("lit_attr.cli.submit", "harvest on a SLURM cluster"),
}
_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Without the program's name; those of the process if None.

    Returns:
        0, or 2 for a mistake, which is explained on standard error.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else _USAGE_ERROR
    if arguments[0] == "--version":
        print(f"lit_attr {__version__}")
        return 0
    command, *rest = arguments
    if command not in _COMMANDS:
        print(f"lit-attr: unknown command {command!r}\n\n{_help()}", file=sys.stderr)
        return _USAGE_ERROR
    gc.disable()  # imports keep all that they allocate: looking for garbage meanwhile takes a seventh of their time
    run: Callable[[Sequence[str]], None] = import_module(_COMMANDS[command][0]).run
    gc.enable()
    if isinstance(sys.stdout, io.TextIOWrapper):  # tokens may have characters that a terminal has not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        run(rest)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _drop_output()
    except LitAttrError as error:
        print(f"lit-attr: error: {error}", file=sys.stderr)
        return _USAGE_ERROR
    except OSError as error:
        if error.filename is not None:
            raise
        _drop_output()  # standard output is what has no name
        print(f"lit-attr: error: cannot write the output: {error}", file=sys.stderr)
        return _USAGE_ERROR
    return 0


def _drop_output() -> None:
    """Keep Python from writing at its end what cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _help() -> str:
    lines = [f"  {name:<10}{text}" for name, (_, text) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: lit-attr COMMAND ...",
            "",
            *lines,
            "",
            "`lit-attr COMMAND --help` explains a command; --version is shown too.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
