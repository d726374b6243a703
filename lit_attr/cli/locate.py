"""Finding the harvest that a command line means."""

import argparse
import os
from pathlib import Path

from lit_attr.errors import RunNotFoundError


def harvest_parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that name a harvest."""
    parser = argparse.ArgumentParser(prog=f"lit-attr {command}", description=description)
    parser.add_argument("run", metavar="RUN", help="a run id, run folder or reference, or the folder of a harvest")
    parser.add_argument("--subrun_id", help="id of the harvest, da-...; default: the newest")
    parser.add_argument("--out_dir", help="root of results; default: $LIT_ATTR_OUT_DIR, else $SPD_OUT_DIR, else ./out")
    return parser


def run_id_of(run: str) -> str:
    """The id under which a run's results are stored.

    Args:
        run: A run id, a run folder, or a reference.
    """
    from lit_attr.decomposition.reference import RunReference, run_id_of_folder

    if os.path.isdir(run):  # unlike Path's, it takes any text
        return run_id_of_folder(Path(run).absolute())
    reference = RunReference.match(run)
    return reference.run_id if reference else run


def harvest_folder(options: argparse.Namespace) -> Path:
    """The folder of the harvest that parsed arguments name.

    Raises:
        RunNotFoundError: If there is none.
    """
    from lit_attr.storage.plan import PLAN_FILE
    from lit_attr.storage.repo import run_folder, subrun_folder, subruns

    if os.path.isfile(Path(options.run) / PLAN_FILE):
        return Path(options.run)
    run_id = run_id_of(options.run)
    if options.subrun_id is not None:
        folder = subrun_folder(run_id, options.subrun_id, options.out_dir)
        if os.path.isdir(folder):  # unlike Path's, it takes any text
            return folder
        raise RunNotFoundError(f"no harvest {options.subrun_id} of {options.run!r}: there is no {folder}")
    found = subruns(run_id, options.out_dir)
    if not found:
        raise RunNotFoundError(f"no harvest of {options.run!r} in {run_folder(run_id, options.out_dir)}")
    return found[0]


def find_stored(run: str, out_dir: str | None) -> Path:
    """The file of a stored harvest.

    Args:
        run: A run id, run folder or reference, whose newest harvest is meant, the folder of a harvest, or a file.
        out_dir: Root of results.

    Raises:
        RunNotFoundError: If there is none.
    """
    from lit_attr.storage.repo import MERGED_FILE, AttributionRepo, run_folder

    for path in (Path(run) / MERGED_FILE, Path(run)):
        if os.path.isfile(path):  # unlike Path's, it takes any text
            return path
    run_id = run_id_of(run)
    repo = AttributionRepo.open(run_id, out_dir)
    if repo is None:
        raise RunNotFoundError(f"no stored harvest of {run!r}: no such file, and none in {run_folder(run_id, out_dir)}")
    return repo.path
