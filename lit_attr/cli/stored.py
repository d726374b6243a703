"""Opening the stored harvest that a command line means."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lit_attr.query.explorer import Explorer


def open_stored(
    run: str, out_dir: str | None, subrun_id: str | None = None, tokenizer: str | None = None
) -> "Explorer":
    """A stored harvest, opened for questions; where it is partial, standard error says so.

    Args:
        run: A run id, run folder, reference or folder of a harvest, or a file.
        out_dir: Root of results.
        subrun_id: The harvest of the run that is meant, if not the newest with a result.
        tokenizer: A `tokenizer.json`, if not the one that the harvest's provenance leads to.

    Raises:
        RunNotFoundError: If there is none.
        StorageError: If the file is damaged.
        ConfigurationError: If there is no such tokenizer.
    """
    from lit_attr.cli.locate import find_stored
    from lit_attr.query.explorer import Explorer

    explorer = Explorer(find_stored(run, out_dir, subrun_id), tokenizer)
    if partial := explorer.storage.recorded.partial:
        print(f"lit-attr: PARTIAL result, of {partial}", file=sys.stderr)
    return explorer
