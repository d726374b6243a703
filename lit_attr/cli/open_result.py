"""Opening the result that a command line means."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lit_attr.cli.find_result import find_result
from lit_attr.storage.result_folders import results, run_of_harvest

if TYPE_CHECKING:
    from lit_attr.query.explorer import Explorer
    from lit_attr.query.result_name import ResultName


def open_result(
    run: str, out_dir: str | None, subrun_id: str | None = None, tokenizer: str | Path | None = None
) -> "Explorer":
    """A result, opened for questions; where it is partial, standard error says so.

    Args:
        run: A run id, run folder or reference, the folder of a harvest, or a file.
        out_dir: Root of results.
        subrun_id: Id of the harvest of the run that is meant, if not the newest with a result.
        tokenizer: A `tokenizer.json`, if not the one that the result's provenance leads to.

    Raises:
        RunNotFoundError: If there is none.
        StorageError: If the file is damaged.
        ConfigurationError: If there is no such tokenizer.
    """
    from lit_attr.query.explorer import Explorer

    explorer = Explorer(find_result(run, out_dir, subrun_id), tokenizer)
    if partial := explorer.storage.recorded.partial:
        print(f"lit-attr: PARTIAL result, of {partial}", file=sys.stderr)
    return explorer


def name_of(explorer: "Explorer", run: str, subrun_id: str | None) -> "ResultName":
    """The name of an opened result, and of how many it is the newest, where the command line named none of them.

    Args:
        explorer: The result, as `open_result` opened it.
        run: RUN, as it was given.
        subrun_id: Id of the harvest, as it was given.
    """
    from lit_attr.query.result_name import ResultName

    path = explorer.path
    if subrun_id is not None or Path(run) in (path, path.parent):
        return explorer.name
    newest_of = len(results(*run_of_harvest(path.parent)))
    return ResultName.read(path, explorer.storage, newest_of)
