"""Time limits in the forms that SLURM takes, and whether one leaves time for work before the warning of its end."""

import re
from collections.abc import Mapping

from lit_attr.errors import LaunchError
from lit_attr.launch.render import template
from lit_attr.launch.request import Request

# SLURM looks at times once a minute: a warning may come so many seconds earlier than it is asked for.
_RESOLUTION = 60
# Where a signal is asked for without a time.
_DEFAULT_WARNING = 60
_UNITS = {
    r"(\d+)": (60,),
    r"(\d+):(\d+)": (60, 1),
    r"(\d+):(\d+):(\d+)": (3600, 60, 1),
    r"(\d+)-(\d+)": (86400, 3600),
    r"(\d+)-(\d+):(\d+)": (86400, 3600, 60),
    r"(\d+)-(\d+):(\d+):(\d+)": (86400, 3600, 60, 1),
}


def seconds(limit: str) -> int | None:
    """The length of a time limit; None for one without an end, and for what is no time limit.

    Args:
        limit: Text as `sbatch --time` takes it: minutes, M:SS, H:MM:SS, D-H, D-H:MM or D-H:MM:SS. 0 is no limit.

    Example:
        >>> seconds("90"), seconds("1:30"), seconds("1-12"), seconds("UNLIMITED")
        (5400, 90, 129600, None)
    """
    for form, units in _UNITS.items():
        if match := re.fullmatch(form, limit):
            return sum(int(number) * unit for number, unit in zip(match.groups(), units, strict=True)) or None
    return None


def check_time_limit(request: Request, variables: Mapping[str, str]) -> None:
    """Refuse a time limit that is over before the warning of its end could be obeyed.

    The script's own values count, unless the request has others, or variables of sbatch, which beat scripts.

    Args:
        request: The machines that are asked for.
        variables: The environment of the process.

    Raises:
        LaunchError: If it is; the message names both times.
    """
    script = "predict" if request.mode == "ddp" else "array"
    limit, origin = request.time or _value(script, "time"), f"--time {request.time}" if request.time else "the script's"
    if given := variables.get("SBATCH_TIMELIMIT"):
        limit, origin = given, f"SBATCH_TIMELIMIT={given}"
    warning = _warning(variables.get("SBATCH_SIGNAL") or _value(script, "signal"))
    available = seconds(limit)
    if available is not None and warning is not None and available <= warning + _RESOLUTION:
        raise LaunchError(
            f"a time limit of {available} s ({origin}) is over before a worker did anything: SLURM warns it {warning} s"
            f" before the end, or up to {_RESOLUTION} s earlier. Ask for more than "
            f"{(warning + _RESOLUTION) // 60} minutes"
        )


def _warning(signal: str) -> int | None:
    """How many seconds before the end of a job its signal comes; None where there is no signal."""
    match = re.fullmatch(r"(?:[RB]+:)?\w+(?:@(\d+))?", signal)
    return None if match is None else int(match[1] or _DEFAULT_WARNING)


def _value(script: str, option: str) -> str:
    line = re.search(rf"^#SBATCH --{option}=(\S+)", template(script), re.MULTILINE)
    return line[1] if line else ""
