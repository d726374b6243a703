"""Finding the harvest that a command line means."""

import argparse
import os
from pathlib import Path

from lit_attr.errors import RunNotFoundError

STORED_HELP = "a run id, run folder or reference, the folder of a harvest, or a dataset_attributions.pt"


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
    from lit_attr.storage.places import run_folder, subrun_folder, subruns
    from lit_attr.topology.words import PLAN_FILE

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


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that, beside RUN, say which stored harvest is meant."""
    parser.add_argument("--subrun_id", help="id of the harvest, da-...; default: the newest with a result")
    parser.add_argument("--out_dir", help="root of results; default: $LIT_ATTR_OUT_DIR, else $SPD_OUT_DIR, else ./out")


def find_stored(run: str, out_dir: str | None, subrun_id: str | None = None) -> Path:
    """The file of a stored harvest.

    Args:
        run: A run id, run folder or reference, whose newest harvest is meant, the folder of a harvest, or a file.
        out_dir: Root of results.
        subrun_id: The harvest of the run that is meant, if not the newest with a result.

    Raises:
        RunNotFoundError: If there is none.
    """
    from lit_attr.storage.places import results, run_folder, subrun_folder, subruns
    from lit_attr.topology.words import MERGED_FILE, PLAN_FILE

    if os.path.isfile(run):  # unlike Path's, it takes any text
        return Path(run)
    is_harvest = any(os.path.isfile(Path(run) / name) for name in (MERGED_FILE, PLAN_FILE))
    if run.endswith(".pt") or (os.path.isabs(run) and not os.path.isdir(run)):
        raise RunNotFoundError(f"no stored harvest: there is no file {run}")
    run_id = run_id_of(run)
    if is_harvest:
        harvests = [Path(run)]
    elif subrun_id is not None:
        harvests = [subrun_folder(run_id, subrun_id, out_dir)]
    else:
        harvests = [path.parent for path in results(run_id, out_dir)] or subruns(run_id, out_dir)
    for harvest in harvests:
        if os.path.isfile(harvest / MERGED_FILE):
            return harvest / MERGED_FILE
    where = harvests[0] if harvests else run_folder(run_id, out_dir)
    raise RunNotFoundError(f"no stored harvest of {run!r}: {_what_is_there(where)}")


def _what_is_there(folder: Path) -> str:
    """Why a folder has no result, and what can be done."""
    from lit_attr.topology.words import PARTIAL_FILE, PLAN_FILE

    if os.path.isfile(folder / PARTIAL_FILE):
        return f"only a partial result: {folder / PARTIAL_FILE}"
    if os.path.isfile(folder / PLAN_FILE):
        return f"the harvest in {folder} is not finished, or not merged; see lit-attr status {folder}"
    return f"no such file, and none in {folder}"
