"""`lit-attr submit`: a harvest on a SLURM cluster."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from lit_attr.files.roots import output_root
from lit_attr.launch.code import Code
from lit_attr.launch.jobs import Jobs
from lit_attr.launch.report import code_report, dry_run_report, submission_report
from lit_attr.launch.request import MODES, Request
from lit_attr.launch.slurm import require_sbatch
from lit_attr.launch.submit import check_limits, submit
from lit_attr.launch.time_limit import check_time_limit


def run(arguments: Sequence[str]) -> None:
    """Submit a harvest, or show what would be submitted.

    Args:
        arguments: Words of the command line behind `submit`.

    Raises:
        LitAttrError: If anything the user gave makes no sense, or SLURM or git refuse.
    """
    options, overrides = _parser().parse_known_args(arguments)
    given = vars(options)
    dry_run, snapshot = given.pop("dry_run"), given.pop("snapshot")
    request = Request(**given)
    check_time_limit(request, os.environ)
    if not dry_run:
        require_sbatch()
        check_limits(request)
    # Lightning is imported only now: help and mistakes above answer at once.
    from lit_attr.cli.configuration import resolve_harvest

    harvest = resolve_harvest(overrides)
    package = Path(__file__).resolve().parents[1]
    code = Code.choose(package, (output_root(), output_root(harvest.out_dir)), snapshot)
    jobs = Jobs.plan(request, harvest, code)
    if dry_run:
        print(f"{dry_run_report(jobs)}\n\n{code_report(jobs)}")
        return
    ids = submit(jobs)
    print(f"{code_report(jobs)}\n{submission_report(jobs, ids)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-attr submit",
        usage="lit-attr submit --config CONFIG --n_gpus N [options] [--key value ...]",
        description="Harvest on a SLURM cluster. All other options are those of predict, such as --model.run.",
        allow_abbrev=False,
    )
    script = "default: as in slurm/*.sbatch"
    parser.add_argument("--n_gpus", type=int, required=True, help="devices in all (processes, if on CPUs)")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="array",
        help="array (default): independent workers, then a merge; ddp: one job of communicating processes",
    )
    parser.add_argument("--gpus_per_node", type=int, default=8, help="of a machine, for --mode ddp; default: 8")
    parser.add_argument(
        "--max_concurrent", type=int, help="most workers at once, for --mode array; default: as many as SLURM starts"
    )
    parser.add_argument("--partition", help="of SLURM; default: the cluster's own")
    parser.add_argument("--time", help=f"limit of a job, such as 4:00:00; {script}")
    parser.add_argument("--merge_time", help=f"limit of the merge; {script}")
    parser.add_argument("--merge_mem", help=f"memory of the merge, such as 8G; {script}")
    parser.add_argument("--job_suffix", help="behind the jobs' names")
    parser.add_argument(
        "--snapshot", metavar="COMMIT", help="run this branch or commit; default: a snapshot, taken now"
    )
    parser.add_argument("--dry_run", action="store_true", help="show scripts and commands; write and submit nothing")
    return parser
