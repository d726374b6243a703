"""Finding stored harvests of a run."""

import os
import re
from datetime import datetime
from pathlib import Path

from lit_attr.errors import StorageError
from lit_attr.files.roots import output_root

_FOLDER = "dataset_attributions"
_SUBRUN_PREFIX = "da-"
_SUBRUN_ID = re.compile(r"da-[\w.-]+", re.ASCII)
_MAX_SUBRUNS_AT_ONCE = 100


def run_folder(run_id: str, out_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a run's harvests; `out_dir` as in `output_root`."""
    return output_root(out_dir) / _FOLDER / run_id


def subrun_folder(run_id: str, subrun_id: str, out_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of one harvest of a run.

    Raises:
        StorageError: If the id is not one that harvests have.
    """
    if not _SUBRUN_ID.fullmatch(subrun_id):
        raise StorageError(f"{subrun_id!r} is no harvest's id: expected '{_SUBRUN_PREFIX}' and a time or name")
    return run_folder(run_id, out_dir) / subrun_id


def subruns(run_id: str, out_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """The folders of a run's harvests, finished or not, newest first."""
    folder = run_folder(run_id, out_dir)
    if not os.path.isdir(folder):  # unlike Path's, it takes any text
        return []
    return sorted((path for path in folder.glob(f"{_SUBRUN_PREFIX}*") if path.is_dir()), reverse=True)


def create_subrun(run_id: str, out_dir: str | os.PathLike[str] | None = None) -> Path:
    """Create the folder of a new harvest, named after the local time.

    Raises:
        StorageError: If it cannot be created.
    """
    parent = run_folder(run_id, out_dir)
    name = datetime.now().strftime(f"{_SUBRUN_PREFIX}%Y%m%d_%H%M%S")
    # Two harvests that begin in the same second get folders of their own; the later sorts behind.
    for number in range(_MAX_SUBRUNS_AT_ONCE):
        folder = parent / (f"{name}_{number:02d}" if number else name)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"cannot create the folder {folder}: {error}") from error
        return folder
    raise StorageError(f"{_MAX_SUBRUNS_AT_ONCE} harvests of {run_id} began in the same second in {parent}")
