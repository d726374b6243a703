"""`lit-attr merge`: the parts of independent workers into one result."""

from collections.abc import Sequence
from typing import get_args

from lit_attr.cli.arguments import harvest_parser
from lit_attr.cli.find_result import find_harvest, next_commands
from lit_attr.topology.words import COMPACT_FILE, MERGED_FILE, PARTIAL_FILE, STRONGEST_FILE, DenseChoice, ResultDtype


def run(arguments: Sequence[str]) -> None:
    """Merge the parts of a harvest, and say where the result is.

    Args:
        arguments: Words of the command line behind `merge`.

    Raises:
        RunNotFoundError: If there is no such harvest.
        StorageError: If a part is missing, damaged, foreign or counted twice, or the result cannot be written.
    """
    parser = harvest_parser(
        "merge",
        "Merge what the workers of a harvest have committed. Every batch must be there exactly once; files that are "
        "missing, damaged or foreign are named.",
    )
    parser.add_argument(
        "--allow_partial",
        action="store_true",
        help=f"write what is there, as {PARTIAL_FILE}, if batches are missing",
    )
    parser.add_argument(
        "--dense",
        choices=get_args(DenseChoice),
        default="auto",
        help=f"whether the result has the original's format ({MERGED_FILE}), with places for all components, or the "
        f"compact form ({COMPACT_FILE}), with those of live ones; auto: the first up to 4 GB",
    )
    parser.add_argument(
        "--keep",
        type=int,
        metavar="K",
        help=f"write the K strongest edges of everything alone ({STRONGEST_FILE}); what is dropped is counted",
    )
    parser.add_argument(
        "--dtype",
        choices=get_args(ResultDtype),
        default="float32",
        help="type of the sums of edges into components; bfloat16: two bytes each instead of four, in the compact form",
    )
    options = parser.parse_args(arguments)
    # torch is imported only now: help and mistakes answer at once.
    folder = find_harvest(options.run, options.out_dir, options.subrun_id)
    from lit_attr.parts.merge import merge_harvest
    from lit_attr.storage.result_form import ResultForm

    form = ResultForm(options.dense, options.keep, options.dtype)
    path = merge_harvest(folder, form, allow_partial=options.allow_partial)
    print(f"merged into {path}\n{next_commands(path)}")
