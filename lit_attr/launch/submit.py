"""Handing jobs to SLURM."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from lit_attr.errors import LaunchError
from lit_attr.launch.jobs import CONFIGURATION, Jobs


def commands(jobs: Jobs, ids: Sequence[str] = ()) -> list[list[str]]:
    """The commands that submit the jobs, in order.

    Args:
        jobs: The jobs.
        ids: Of the jobs that are submitted already; the others have their names in capitals.
    """
    found = []
    names = list(jobs.scripts)
    for number, name in enumerate(names):
        options = []
        if number:
            before = ids[number - 1] if number <= len(ids) else f"{names[number - 1].upper()}_JOB"
            options = [f"--dependency=afterok:{before}", "--kill-on-invalid-dep=yes"]
        found.append(["sbatch", "--parsable", *options, str(jobs.script_path(name))])
    return found


def require_sbatch() -> None:
    """Find out whether jobs can be submitted from here.

    Raises:
        LaunchError: If there is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise LaunchError("no sbatch on the PATH: submit from a machine that has SLURM, or see --dry_run")


def submit(jobs: Jobs) -> list[str]:
    """Write scripts, configuration and code into the jobs' folder, and submit.

    Args:
        jobs: The jobs.

    Returns:
        The ids, in the order of the scripts.

    Raises:
        LaunchError: If anything of this fails; then no job, file or branch is left behind.
    """
    require_sbatch()
    try:
        jobs.folder.mkdir(parents=True)
    except OSError as error:
        raise LaunchError(f"cannot create the folder {jobs.folder}: {error}") from error
    ids: list[str] = []
    try:
        jobs.code.write(jobs.code_folder, jobs.branch)
        (jobs.folder / CONFIGURATION).write_text(jobs.harvest.configuration, encoding="utf-8")
        for name, text in jobs.scripts.items():
            jobs.script_path(name).write_text(text, encoding="utf-8")
        for number in range(len(jobs.scripts)):
            ids.append(_sbatch(commands(jobs, ids)[number]))
    except BaseException as error:
        _undo(jobs, ids)
        if isinstance(error, OSError):
            raise LaunchError(f"cannot write into {jobs.folder}: {error}") from error
        raise
    return ids


def _sbatch(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    answer = re.match(r"(\d+)(;|$)", done.stdout.strip())  # behind the semicolon is the cluster's name
    if done.returncode or answer is None:
        reason = " ".join((done.stderr or done.stdout).split())
        raise LaunchError(f"sbatch refused {os.path.basename(command[-1])}: {reason}")
    return answer[1]


def _undo(jobs: Jobs, ids: Sequence[str]) -> None:
    if ids:
        subprocess.run(["scancel", *ids], capture_output=True)
    with contextlib.suppress(LaunchError):
        jobs.code.undo(jobs.code_folder, jobs.branch)
    shutil.rmtree(jobs.folder, ignore_errors=True)
