"""`lit-attr index`: the index that makes questions to a large result fast."""

import argparse
from collections.abc import Sequence

from lit_attr.cli.arguments import add_place, add_result
from lit_attr.cli.find_result import find_result


def run(arguments: Sequence[str]) -> None:
    """Write the index of a result beside it, and say where it is.

    Args:
        arguments: Words of the command line behind `index`.

    Raises:
        RunNotFoundError: If there is no such result.
        StorageError: If it is damaged, or the index cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="lit-attr index",
        description="Write lists of the strongest edges of every component and token beside a result, so that "
        "questions to it are fast however large it is. It takes longer than merging, and may be deleted at any time.",
    )
    add_result(parser)
    add_place(parser)
    options = parser.parse_args(arguments)
    from lit_attr.query.index_build import build_index
    from lit_attr.query.index_file import open_index

    path = build_index(find_result(options.run, options.out_dir, options.subrun_id))
    lacks_abs = "attr_abs" not in open_index(path).contents["metrics"]
    print(f"index written to {path}" + (", of attr alone: attr_abs was not harvested" if lacks_abs else ""))
