"""Entry point of `lit-attr`: finds the command, and imports only what that command needs."""

import gc
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from lit_attr import early_signal
from lit_attr._version import __version__
from lit_attr.errors import LitAttrError

# Command to the module whose `run(arguments)` does it, and one line of help.
_COMMANDS = {
    "predict": ("lit_attr.cli.predict", "harvest dataset attributions of a decomposition run"),
    "plan": ("lit_attr.cli.plan", "say what a harvest needs of memory, disk and time, before anything is loaded"),
    "merge": ("lit_attr.cli.merge", "merge the parts of independent workers into one result"),
    "status": ("lit_attr.cli.status", "how far a running harvest is, across its workers"),
    "verify": ("lit_attr.cli.verify", "check a stored result: digest, shapes, finiteness, coverage"),
    "query": ("lit_attr.cli.query", "ask a result: sources, targets, edges, layers, subgraphs"),
    "compare": ("lit_attr.cli.compare", "compare two results: which edges differ, and how sure that is"),
    "index": ("lit_attr.cli.index", "make questions to a large result fast"),
    "export": ("lit_attr.cli.export", "write a result as safetensors, parquet or GraphML, or log it to wandb"),
    "plot": ("lit_attr.cli.plot", "draw a result: edge mass, a component, how sure edges are"),
    "view": ("lit_attr.cli.view", "show a result as a page in the browser"),
    "submit": ("lit_attr.cli.submit", "harvest on a SLURM cluster"),
}
_USAGE_ERROR = 2
_CTRL_C = 130  # by the convention of shells
_HELP = ("-h", "--help")
# torchmetrics and Lightning import them where they are installed, for what nobody uses here: a second of CPU time. Who
# needs them imports them later.
_NOT_YET = ("matplotlib", "transformers", "triton")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Without the program's name; those of the process if None.

    Returns:
        0; 2 for a mistake, which is explained on standard error; 130 after Ctrl-C.
    """
    is_process = arguments is None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # A reader such as `head` may have seen enough of an answer; a harvest is not done by then.
    is_harvest = arguments[:1] == ["predict"] and not _wants_help(arguments)
    if is_process and is_harvest:
        early_signal.listen()
    return explained(lambda: _run(arguments, is_process=is_process), is_process=is_process, may_be_cut=not is_harvest)


def explained(do: Callable[[], int], *, is_process: bool = True, may_be_cut: bool = True) -> int:
    """Do what a program does; where it ends early, say why in one line on standard error.

    Args:
        do: Returns the exit code.
        is_process: Whether the standard streams are those of the process, which may be closed.
        may_be_cut: Whether all is well when nobody reads the rest of standard output.

    Returns:
        The exit code: that of `do`, 2 for a mistake, or 130 after Ctrl-C.
    """
    if is_process and not _open_standard_streams():
        print("lit-attr: error: standard output is closed; `> /dev/null` drops what is said", file=sys.stderr)
        return _USAGE_ERROR
    try:
        try:
            return do()
        except LitAttrError as error:
            print(f"lit-attr: error: {error}", file=sys.stderr)
            return error.exit_code
        finally:  # help ends in SystemExit, and what cannot be written must be seen here
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("lit-attr: stopped by Ctrl-C", file=sys.stderr)
        return _CTRL_C
    except OSError as error:
        if error.filename is not None:
            raise
        _drop_output()  # standard output is what has no name
        if isinstance(error, BrokenPipeError) and may_be_cut:
            return 0
        print(f"lit-attr: error: cannot write the output: {error}", file=sys.stderr)
    return _USAGE_ERROR


def _run(arguments: list[str], *, is_process: bool) -> int:
    if not arguments or arguments[0] in _HELP:
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
    run = _import_command(command, is_short=is_process and (command == "predict" or _wants_help(rest)))
    if is_process:
        gc.freeze()  # and so does looking through it later
    gc.enable()
    if isinstance(sys.stdout, io.TextIOWrapper):  # tokens may have characters that a terminal has not
        sys.stdout.reconfigure(errors="backslashreplace")
    run(rest)
    return 0


def _import_command(command: str, *, is_short: bool) -> Callable[[Sequence[str]], None]:
    module, _ = _COMMANDS[command]
    if not is_short:
        return import_module(module).run
    from lit_attr.lean_imports import compiler_later, not_installed

    with compiler_later(), not_installed(*_NOT_YET):
        return import_module(module).run


def _wants_help(arguments: Sequence[str]) -> bool:
    return any(argument in _HELP for argument in arguments)


def _open_standard_streams() -> bool:
    """Put something in the place of standard streams that are closed, which the next file to be opened would take.

    Returns:
        Whether standard output was open.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    has_output = sys.stdout is not None
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    return has_output


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
