"""Finding the harvests of a run, and their results, in either layout; see `ResultLayout`."""

import os
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lit_attr.errors import ConfigurationError, StorageError, shown
from lit_attr.files.file_system import explain
from lit_attr.files.roots import is_file_name, output_root
from lit_attr.topology.words import (
    HEADER_FILE,
    PARTIAL_FILES,
    PARTS_FOLDER,
    PLAN_FILE,
    RESULT_FILES,
    RESULT_LAYOUTS,
    STRONGEST_FILE,
    ResultLayout,
)

_FOLDER = "dataset_attributions"
_RUNS = "runs"
_SUBRUN_PREFIX = "da-"
_SUBRUN_ID = re.compile(r"da-[\w.-]+", re.ASCII)
_MAX_SUBRUNS_AT_ONCE = 100
# What a harvest writes while it runs; an index or an export beside its result is no news of it.
_WRITTEN = (PLAN_FILE, HEADER_FILE, "generation_*.json", f"{PARTS_FOLDER}/*.pt", *RESULT_FILES, STRONGEST_FILE)


@dataclass(frozen=True)
class Place:
    """Where a harvest of a run belongs.

    Attributes:
        out_dir: Root of the results, as in `output_root`.
        subrun_id: Id of the harvest; None for one that is to be found or begun.
        layout: Layout of the results, where the harvest is begun.

    Raises:
        ConfigurationError: If there is no such layout.
    """

    out_dir: str | os.PathLike[str] | None = None
    subrun_id: str | None = None
    layout: ResultLayout = "spd"

    def __post_init__(self) -> None:
        if self.layout not in RESULT_LAYOUTS:
            raise ConfigurationError(f"writer.layout must be one of {list(RESULT_LAYOUTS)}, found {shown(self.layout)}")


def run_folder(
    run_id: str, out_dir: str | os.PathLike[str] | None = None, layout: ResultLayout = RESULT_LAYOUTS[0]
) -> Path:
    """The folder of a run's harvests in a layout; `out_dir` as in `output_root`.

    Raises:
        StorageError: If the id could lead to another folder.
    """
    if not is_file_name(run_id):
        raise StorageError(f"{run_id!r} is no run's id: expected the name of a folder")
    root = output_root(out_dir)
    return root / _FOLDER / run_id if layout == "spd" else root / _RUNS / run_id / _FOLDER


def run_of_harvest(folder: Path) -> tuple[str, Path]:
    """The id of the run whose harvest a folder would be, and the root of the results."""
    parent = folder.absolute().parent
    if parent.name == _FOLDER:
        return parent.parent.name, parent.parent.parent.parent
    return parent.name, parent.parent.parent


def subrun_folder(
    run_id: str,
    subrun_id: str,
    out_dir: str | os.PathLike[str] | None = None,
    layout: ResultLayout = RESULT_LAYOUTS[0],
) -> Path:
    """The folder of one harvest of a run: the one that is there, else that of the layout.

    Raises:
        StorageError: If the id is not one that harvests have.
    """
    check_subrun_id(subrun_id)
    folders = [run_folder(run_id, out_dir, some) / subrun_id for some in (layout, *RESULT_LAYOUTS)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def check_subrun_id(subrun_id: str) -> None:
    """Check an id before it becomes a path.

    Raises:
        StorageError: If it is not one that harvests have.
    """
    if not is_subrun_id(subrun_id):
        raise StorageError(f"{subrun_id!r} is no harvest's id: expected '{_SUBRUN_PREFIX}' and a time or name")


def is_subrun_id(name: str) -> bool:
    """Whether a folder's name is one that harvests have."""
    return _SUBRUN_ID.fullmatch(name) is not None and is_file_name(name)


def subruns(run_id: str, out_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """The folders of a run's harvests, finished or not: first the one that wrote something last."""
    return sorted(_folders(run_id, out_dir), key=_last_written, reverse=True)


def results(run_id: str, out_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """The results of a run's harvests: first the one that was written last."""
    there = [path for folder in _folders(run_id, out_dir) if (path := result_in(folder)) is not None]
    return sorted(there, key=lambda path: (_changed(path) or 0, path), reverse=True)


def result_in(folder: Path) -> Path | None:
    """The result in the folder of a harvest, in the form that was written last; None if there is none.

    Its strongest edges alone are the result where there is no other.
    """
    written = {path: _changed(path) for path in (folder / name for name in RESULT_FILES)}
    there = [(time, path) for path, time in written.items() if time is not None]
    if there:
        return max(there)[1]
    strongest = folder / STRONGEST_FILE
    return strongest if os.path.isfile(strongest) else None


def why_no_result(folder: Path) -> str:
    """Why the folder of a harvest has no result, and what can be done, in words."""
    for partial in (folder / name for name in PARTIAL_FILES):
        if os.path.isfile(partial):  # unlike Path's, it takes any text
            return f"only a partial result: {partial}"
    if os.path.isfile(folder / PLAN_FILE):
        run = shlex.quote(str(folder))
        return f"the harvest in {folder} is not finished, or not merged; see lit-attr status {run}"
    return f"no such file, and none in {folder}"


def _folders(run_id: str, out_dir: str | os.PathLike[str] | None) -> list[Path]:
    folders = [run_folder(run_id, out_dir, layout) for layout in RESULT_LAYOUTS]
    there = [folder for folder in folders if os.path.isdir(folder)]  # unlike Path's, it takes any text
    return [path for folder in there for path in folder.glob(f"{_SUBRUN_PREFIX}*") if path.is_dir()]


def _last_written(folder: Path) -> tuple[int, str]:
    """When a harvest wrote something last, and its name, which decides between equal times."""
    times = [_changed(path) for pattern in _WRITTEN for path in folder.glob(pattern)]
    return max((time for time in times if time is not None), default=0), folder.name


def _changed(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None if there is none."""
    try:
        return path.stat().st_mtime_ns if path.is_file() else None
    except OSError:  # replaced, or removed, this moment
        return None


def create_subrun(
    run_id: str, out_dir: str | os.PathLike[str] | None = None, layout: ResultLayout = RESULT_LAYOUTS[0]
) -> Path:
    """Create the folder of a new harvest, named after the time in UTC.

    Raises:
        StorageError: If it cannot be created.
    """
    parent = run_folder(run_id, out_dir, layout)
    name = datetime.now(UTC).strftime(f"{_SUBRUN_PREFIX}%Y%m%d_%H%M%S")
    # Two harvests that begin in the same second get folders of their own.
    for number in range(_MAX_SUBRUNS_AT_ONCE):
        folder = parent / (f"{name}_{number:02d}" if number else name)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"cannot create the folder {folder}: {explain(error, folder)}") from error
        return folder
    raise StorageError(f"{_MAX_SUBRUNS_AT_ONCE} harvests of {run_id} began in the same second in {parent}")
