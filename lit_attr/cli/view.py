"""`lit-attr view`: a page that shows a result."""

import argparse
import os
from collections.abc import Sequence

from lit_attr.cli.arguments import add_place, add_result, add_tokenizer
from lit_attr.cli.find_result import find_result


def run(arguments: Sequence[str]) -> None:
    """Serve the page until it is interrupted, and print its address.

    Args:
        arguments: Words of the command line behind `view`.

    Raises:
        RunNotFoundError: If there is no such result.
        StorageError: If it is damaged.
        ConfigurationError: If starlette or uvicorn are not installed, the port is taken, or there is no such tokenizer.
    """
    options = _parser().parse_args(arguments)
    from lit_attr.view.serve import serve

    path = find_result(options.run, options.out_dir, options.subrun_id)

    def say(address: str) -> None:
        print(f"{path} is shown at {address} (Ctrl-C ends it)", flush=True)

    if serve(path, options.host, options.port, options.tokenizer, say):
        os._exit(0)  # whoever has interrupted it does not want to wait for answers that nobody gets


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-attr view",
        description="Serve a page that shows a result: search for a component or token, see what feeds it and "
        "what it feeds, and walk along the edges. It only reads, and answers only this machine.",
    )
    add_result(parser)
    parser.add_argument("--port", type=int, help="default: 8750, or a free one if that is taken; 0: a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="what to listen on; default: 127.0.0.1, which only this machine reaches"
    )
    add_tokenizer(parser)
    add_place(parser)
    return parser
