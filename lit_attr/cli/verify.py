"""`lit-attr verify`: is a stored result what it says?"""

import os
from collections.abc import Sequence
from pathlib import Path

from lit_attr.cli.arguments import harvest_parser
from lit_attr.cli.find_result import find_harvest, find_result
from lit_attr.storage.result_folders import result_in
from lit_attr.topology.words import MERGED_FILE


def run(arguments: Sequence[str]) -> None:
    """Check a stored result, and print what it is.

    Args:
        arguments: Words of the command line behind `verify`.

    Raises:
        RunNotFoundError: If there is no such harvest.
        StorageError: If the result is missing, or anything about it is wrong.
    """
    parser = harvest_parser(
        "verify", "Check the digest, shapes, finiteness and coverage of a stored result: of a harvest, or of any file."
    )
    options = parser.parse_args(arguments)
    from lit_attr.storage.verify import verify

    place = options.run, options.out_dir, options.subrun_id
    path = find_result(*place) if os.path.isfile(options.run) else _in_harvest(find_harvest(*place))
    print(path)
    for line in verify(path):
        print(f"  {line}")


def _in_harvest(folder: Path) -> Path:
    """The result of a harvest; where there is none, the name that one has."""
    return result_in(folder) or folder / MERGED_FILE
