"""What a user is told about jobs."""

import shlex
from collections.abc import Sequence

from lit_attr.launch.jobs import CONFIGURATION, Jobs
from lit_attr.launch.submit import submission_commands


def code_report(jobs: Jobs) -> str:
    """Which code the jobs run, and what it is without."""
    code = jobs.code
    if code.repository is None:
        return "code      the installed package: its source is in no git repository"
    what = f"commit {code.commit} of {code.repository}"
    if code.contents is not None:
        what = f"a snapshot of {code.repository} with all changes: branch {jobs.branch}"
    return "\n".join([f"code      {what}", *(f"          without {path}" for path in code.left_out())])


def dry_run_report(jobs: Jobs) -> str:
    """All that a submission would write, and the commands that it would run."""
    files = {jobs.folder / CONFIGURATION: jobs.harvest.configuration}
    files |= {jobs.script_path(name): text for name, text in jobs.scripts.items()}
    shown = [f"# ===== {path}\n{text.rstrip()}\n" for path, text in files.items()]
    return "\n".join(
        [*shown, "# ===== nothing was written or submitted; the commands:", *_lines(submission_commands(jobs))]
    )


def submission_report(jobs: Jobs, ids: Sequence[str]) -> str:
    """Ids, paths, and the commands for what may come next.

    Args:
        jobs: The jobs.
        ids: SLURM's ids of the jobs, in the order of the scripts.
    """
    request, folder = jobs.request, jobs.folder
    run = [jobs.harvest.run_id, "--subrun_id", jobs.subrun_id, *jobs.result_options]
    if request.mode == "array":
        at_once = f", at most {request.max_concurrent} at once" if request.max_concurrent else ""
        shards = jobs.harvest.target_shards
        grid = f" of {shards} target shards" if shards > 1 else ""
        described = f"{ids[0]} ({request.n_gpus} workers{grid}{at_once}), then {ids[1]} (merge, if all workers succeed)"
        logs = f"{folder / jobs.log('array', ids[0], '*')} and {jobs.log('merge', ids[1])}"
        again = [["sbatch", "--array=TASKS", jobs.script_path("array")], ["sbatch", jobs.script_path("merge")]]
    else:
        described = f"{ids[0]} ({request.n_nodes} x {request.devices_per_node} processes)"
        logs = str(folder / jobs.log("predict", ids[0]))
        again = [["sbatch", jobs.script_path("predict")]]
    steps: dict[str, Sequence[Sequence[object]]] = {
        "follow": [["squeue", f"--jobs={','.join(ids)}"], ["lit-attr", "status", *run]],
        "cancel": [["scancel", *ids]],
        "go on": again,  # what was committed counts
        "ask": [["lit-attr", "query", jobs.result, "sources", "KEY"]],
        "tidy up": jobs.code.undo_commands(jobs.code_folder, jobs.branch),
    }
    lines = [
        f"harvest   {jobs.subrun_id}",
        f"jobs      {described}",
        f"logs      {logs}",
        f"result    {jobs.result}",
        "",
    ]
    for name, step in steps.items():
        for number, line in enumerate(_lines(step)):
            lines.append(f"{'' if number else name:<10}{line}")
    return "\n".join(lines)


def _lines(commands: Sequence[Sequence[object]]) -> list[str]:
    return [shlex.join(map(str, command)) for command in commands]
