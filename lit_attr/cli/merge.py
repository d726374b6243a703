"""`lit-attr merge`: the parts of independent workers into one result."""

from collections.abc import Sequence

from lit_attr.cli.locate import harvest_folder, harvest_parser


def run(arguments: Sequence[str]) -> None:
    """Merge the parts of a harvest, and say where the result is.

    Args:
        arguments: Those after `merge`.

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
        help="write what is there, as dataset_attributions.partial.pt, if batches are missing",
    )
    options = parser.parse_args(arguments)
    # torch is imported only now: help and mistakes answer at once.
    folder = harvest_folder(options)
    from lit_attr.parts.merge import merge_harvest

    path = merge_harvest(folder, options.allow_partial)
    print(f"merged into {path}\nask it with: lit-attr query {path} sources KEY")
