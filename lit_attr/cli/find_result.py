"""Finding the harvest, or the result, that a command line means, and the shortest name for it."""

import os
import shlex
from pathlib import Path

from lit_attr.decomposition.reference import RunReference, run_id_of_folder
from lit_attr.errors import ConfigurationError, LitAttrError, RunNotFoundError
from lit_attr.files.roots import is_file_name
from lit_attr.storage.result_folders import (
    result_in,
    results,
    run_folder,
    run_of_harvest,
    subrun_folder,
    subruns,
    why_no_result,
)
from lit_attr.topology.words import PLAN_FILE, RESULT_FILES, STRONGEST_FILE


def find_harvest(run: str, out_dir: str | None, subrun_id: str | None = None) -> Path:
    """The folder of a harvest, finished or not.

    Args:
        run: A run id, run folder or reference, whose newest harvest is meant, or the folder of a harvest.
        out_dir: Root of results.
        subrun_id: Id of the harvest of the run that is meant, if not the newest.

    Raises:
        RunNotFoundError: If there is none.
        ConfigurationError: If `run` is the folder of another harvest than `subrun_id`.
    """
    if os.path.isfile(run):  # unlike Path's, it takes any text
        raise RunNotFoundError(f"no harvest: {run} is a file, expected a run id, or the folder of a harvest")
    folders = _harvests(run, out_dir, subrun_id)
    for folder in folders:
        if os.path.isdir(folder):
            return folder
    if subrun_id is not None:
        raise RunNotFoundError(f"no harvest {subrun_id} of {run!r}: there is no {folders[0]}")
    raise RunNotFoundError(f"no harvest of {run!r} in {run_folder(_run_id(run), out_dir)}")


def find_result(run: str, out_dir: str | None, subrun_id: str | None = None) -> Path:
    """The file of a result.

    Args:
        run: A run id, run folder or reference, whose newest result is meant, the folder of a harvest, or a file.
        out_dir: Root of results.
        subrun_id: Id of the harvest of the run that is meant, if not the newest with a result.

    Raises:
        RunNotFoundError: If there is none.
        ConfigurationError: If `run` is the folder or file of another harvest than `subrun_id`.
    """
    if os.path.isfile(run):  # unlike Path's, it takes any text
        _refuse_another(run, Path(run).absolute().parent, subrun_id)
        return Path(run)
    if run.endswith(".pt") or (os.path.isabs(run) and not os.path.isdir(run)):
        raise RunNotFoundError(f"no result: there is no file {run}")
    folders = _harvests(run, out_dir, subrun_id, have_results=True)
    for folder in folders:
        if (path := result_in(folder)) is not None:
            return path
    where = folders[0] if folders else run_folder(_run_id(run), out_dir)
    raise RunNotFoundError(f"no result of {run!r}: {why_no_result(where)}")


def as_argument(place: Path) -> str:
    """The shortest RUN that means a harvest or a result, as it is written in a shell.

    Args:
        place: The folder of a harvest, or the file of a result.

    Returns:
        The run's id where that finds it, else the path, quoted where a shell needs it.
    """
    is_harvest = place.is_dir()
    run_id, _ = run_of_harvest(place if is_harvest else place.parent)
    try:
        by_id = find_harvest(run_id, None) if is_harvest else find_result(run_id, None)
    except LitAttrError:
        by_id = None
    return shlex.quote(run_id if by_id == place else str(place))


def next_commands(result: Path) -> str:
    """Two lines for whoever has just got a result: how it is asked, and how it is viewed."""
    run = as_argument(result)
    return f"ask it with: lit-attr query {run} sources KEY\nview it with: lit-attr view {run}"


def _harvests(run: str, out_dir: str | None, subrun_id: str | None, *, have_results: bool = False) -> list[Path]:
    """The folders of the harvests that may be meant, the newest first; those with results before all others."""
    if any(os.path.isfile(Path(run) / name) for name in (PLAN_FILE, *RESULT_FILES, STRONGEST_FILE)):
        _refuse_another(run, Path(run).absolute(), subrun_id)
        return [Path(run)]
    if subrun_id is not None:
        return [subrun_folder(_run_id(run), subrun_id, out_dir)]
    finished = [path.parent for path in results(_run_id(run), out_dir)] if have_results else []
    return finished or subruns(_run_id(run), out_dir)


def _refuse_another(run: str, harvest: Path, subrun_id: str | None) -> None:
    if subrun_id not in (None, harvest.name):
        raise ConfigurationError(f"{run} is not of the harvest {subrun_id}: give a run id with --subrun_id, or drop it")


def _run_id(run: str) -> str:
    """The id under which the results of a run are stored.

    Raises:
        RunNotFoundError: If it can be none, but is the path of something that is not there.
    """
    if os.path.isdir(run):
        return run_id_of_folder(Path(run).absolute())
    reference = RunReference.match(run)
    run_id = reference.run_id if reference else run
    if not is_file_name(run_id):
        raise RunNotFoundError(f"no such run, harvest or result: {run!r} is neither a folder nor a file, nor an id")
    return run_id
