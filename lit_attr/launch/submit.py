"""Handing the jobs of a harvest to SLURM, all of them or none."""

import os
import shlex
import shutil
from collections.abc import Sequence

from lit_attr.errors import LaunchError
from lit_attr.files.file_system import explain
from lit_attr.launch.jobs import CONFIGURATION, Jobs
from lit_attr.launch.request import Request
from lit_attr.launch.slurm import require_sbatch, sbatch, scancel, site_limit
from lit_attr.launch.time_limit import check_time_limit


def submission_commands(jobs: Jobs, ids: Sequence[str] = ()) -> list[list[str]]:
    """The commands that submit the jobs, in order.

    Args:
        jobs: The jobs.
        ids: Ids of the jobs that are submitted already; the others have their names in capitals.
    """
    lines = []
    names = list(jobs.scripts)
    for number, name in enumerate(names):
        options = []
        if number:
            before = ids[number - 1] if number <= len(ids) else f"{names[number - 1].upper()}_JOB"
            options = [f"--dependency=afterok:{before}", "--kill-on-invalid-dep=yes"]
        lines.append(["sbatch", "--parsable", *options, str(jobs.script_path(name))])
    return lines


def check_limits(request: Request) -> None:
    """Refuse an array that is larger than the site allows.

    It is not split: its tasks are the workers of one harvest, and the merge waits for one array.

    Raises:
        LaunchError: If it is; the message names the limit and what helps.
    """
    if request.mode != "array":
        return
    # The largest number of a task is below MaxArraySize; MaxJobCount counts each task, and the merge.
    limits = {"MaxArraySize": site_limit("MaxArraySize"), "MaxJobCount": site_limit("MaxJobCount")}
    most = {name: limit - (name == "MaxJobCount") for name, limit in limits.items() if limit is not None}
    for name, n_workers in most.items():
        if request.n_gpus > n_workers:
            raise LaunchError(
                f"--n_gpus {request.n_gpus} is more than this site's SLURM takes in one array: at most {n_workers} "
                f"workers ({name} is {limits[name]}). Use fewer, each of which harvests more batches, or --mode ddp"
            )


def submit(jobs: Jobs) -> list[str]:
    """Write scripts, configuration and code into the jobs' folder, and submit.

    Args:
        jobs: The jobs.

    Returns:
        The ids, in the order of the scripts.

    Raises:
        LaunchError: If anything of this fails. Then no job, file or branch is left behind, or the message says which.
    """
    require_sbatch()
    check_time_limit(jobs.request, os.environ)
    check_limits(jobs.request)
    try:
        jobs.folder.mkdir(parents=True)
    except OSError as error:
        raise LaunchError(f"cannot create the folder {jobs.folder}: {explain(error, jobs.folder)}") from error
    ids: list[str] = []
    has_code = False
    try:
        jobs.code.write(jobs.code_folder, jobs.branch)
        has_code = True
        (jobs.folder / CONFIGURATION).write_text(jobs.harvest.configuration, encoding="utf-8")
        for name, text in jobs.scripts.items():
            jobs.script_path(name).write_text(text, encoding="utf-8")
        for number in range(len(jobs.scripts)):
            ids.append(sbatch(submission_commands(jobs, ids)[number]))
    except LaunchError as error:
        raise LaunchError(f"{error}; {_undo(jobs, ids, has_code=has_code)}") from error
    except OSError as error:
        why = explain(error, jobs.folder / CONFIGURATION)
        raise LaunchError(f"cannot write into {jobs.folder}: {why}; {_undo(jobs, ids, has_code=has_code)}") from error
    except BaseException:
        _undo(jobs, ids, has_code=has_code)
        raise
    return ids


def _undo(jobs: Jobs, ids: Sequence[str], *, has_code: bool) -> str:
    """Take back what was submitted and made.

    Returns:
        What was done and what is left to do, for a message.
    """
    done: list[str] = []
    left: list[str] = []
    jobs_named = f"job {' and '.join(ids)}"
    if ids and (reason := scancel(ids)) is None:
        done.append(f"{jobs_named} was cancelled")
    elif ids:
        left.append(f"{jobs_named} could not be cancelled ({reason}): {shlex.join(['scancel', *ids])}")
    try:
        if has_code:
            jobs.code.undo(jobs.code_folder, jobs.branch)
    except LaunchError as error:
        commands = "; ".join(map(shlex.join, jobs.code.undo_commands(jobs.code_folder, jobs.branch)))
        left.append(f"the snapshot could not be removed ({error}): {commands}")
    else:
        shutil.rmtree(jobs.folder, ignore_errors=True)
        if jobs.folder.exists():
            left.append(f"{jobs.folder} could not be removed: {shlex.join(['rm', '-r', str(jobs.folder)])}")
    return ", ".join([*done, *(left or ["nothing is left behind"])])
