"""`lit-attr verify`: is a stored result what it says?"""

import os
from collections.abc import Sequence
from pathlib import Path

from lit_attr.cli.locate import harvest_folder, harvest_parser


def run(arguments: Sequence[str]) -> None:
    """Check a stored result, and print what was found.

    Args:
        arguments: Those after `verify`.

    Raises:
        RunNotFoundError: If there is no such harvest.
        StorageError: If the result is missing, or anything about it is wrong.
    """
    parser = harvest_parser(
        "verify", "Check the digest, shapes, finiteness and coverage of a stored result: of a harvest, or of any file."
    )
    options = parser.parse_args(arguments)
    from lit_attr.storage.verify import verify
    from lit_attr.topology.words import MERGED_FILE

    path = Path(options.run) if os.path.isfile(options.run) else harvest_folder(options) / MERGED_FILE
    print(path)
    for line in verify(path):
        print(f"  {line}")
