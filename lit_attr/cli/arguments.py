"""Arguments that several commands have, and what can be seen of them before anything is imported or opened."""

import argparse
import math
import os
from collections.abc import Iterable

from lit_attr.errors import KeyFormatError
from lit_attr.files.roots import DEFAULT_ROOT, user_path

_HARVEST = "a run id, run folder or reference, or the folder of a harvest"
_RESULT = "a run id, run folder or reference, the folder of a harvest, or a dataset_attributions.pt"


def add_result(parser: argparse.ArgumentParser) -> None:
    """Add RUN, where it means a result."""
    parser.add_argument("run", metavar="RUN", type=os.path.expanduser, help=_RESULT)


def add_place(parser: argparse.ArgumentParser, default: str = "the newest with a result") -> None:
    """Add the arguments that, beside RUN, say which harvest is meant.

    Args:
        parser: Parser of a command.
        default: Which harvest is meant if none is named.
    """
    parser.add_argument("--subrun_id", help=f"id of the harvest, da-...; default: {default}")
    parser.add_argument("--out_dir", help=f"root of results; default: {DEFAULT_ROOT}")


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    """Add the tokenizer that gives tokens their texts."""
    parser.add_argument(
        "--tokenizer",
        type=user_path,
        help="a tokenizer.json, or a folder with one, with vocab.json and merges.txt, or with tokenizer.model; "
        "default: the one of the result's run",
    )


def harvest_parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser of RUN, where it means a harvest in progress or its folder.

    Args:
        command: Name of the command.
        description: The sentences of its help.
    """
    parser = argparse.ArgumentParser(prog=f"lit-attr {command}", description=description)
    parser.add_argument("run", metavar="RUN", type=os.path.expanduser, help=_HARVEST)
    add_place(parser, "the newest")
    return parser


def finite(text: str) -> float:
    """The type of an option that is a number: neither NaN nor infinite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return value


def check_keys(keys: Iterable[str]) -> None:
    """See mistakes in keys at once; what a key means is seen by an `Explorer`.

    Args:
        keys: Keys as people write them.

    Raises:
        KeyFormatError: If one has no colon.
    """
    for key in keys:
        if ":" not in key:
            raise KeyFormatError(f"malformed component key {key!r}: expected '<layer>:<index>', such as '0.mlp.up:5'")
