"""SLURM's own programs: submitting, cancelling, and what a site allows."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from lit_attr.errors import LaunchError

# Seconds that a question may take; a controller that is away lets its programs wait for minutes.
_TIMEOUT = 20


def require_sbatch() -> None:
    """Find out whether jobs can be submitted from here.

    Raises:
        LaunchError: If there is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise LaunchError("no sbatch on the PATH: submit from a machine that has SLURM, or see --dry_run")


def sbatch(command: Sequence[str]) -> str:
    """Submit a job.

    Args:
        command: `sbatch --parsable` with its options, and the script as the last word.

    Returns:
        The job's id.

    Raises:
        LaunchError: If SLURM refuses.
    """
    script = os.path.basename(command[-1])
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise LaunchError(f"cannot run sbatch: {error}") from error
    answer = re.match(r"(\d+)(;|$)", done.stdout.strip())  # behind the semicolon is the cluster's name
    if done.returncode or answer is None:
        reason = " ".join((done.stderr or done.stdout).split())
        raise LaunchError(f"sbatch refused {script}: {reason}")
    return answer[1]


def scancel(ids: Sequence[str]) -> str | None:
    """Cancel jobs; None, or why that failed."""
    try:
        done = subprocess.run(["scancel", *ids], capture_output=True, text=True, errors="replace")
    except OSError as error:
        return str(error)
    return " ".join(done.stderr.split()) or f"exit code {done.returncode}" if done.returncode else None


def site_limit(name: str) -> int | None:
    """A number in the site's configuration; None where it cannot be had, so that sbatch itself must answer.

    Args:
        name: The number's name in what `scontrol show config` prints.
    """
    try:
        done = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    line = re.search(rf"^{re.escape(name)}\s*=\s*(\d+)\s*$", done.stdout, re.MULTILINE)
    return int(line[1]) if line else None
