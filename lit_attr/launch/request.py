"""What a user asks of SLURM, checked before anything is submitted."""

import re
from dataclasses import dataclass
from typing import Literal

from lit_attr.errors import LaunchError

Mode = Literal["array", "ddp"]
MODES: tuple[Mode, ...] = ("array", "ddp")

# Forms that sbatch documents for --time and --mem.
_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|UNLIMITED", re.IGNORECASE)
_MEMORY = re.compile(r"\d+[KMGT]?", re.IGNORECASE)
_NAME = re.compile(r"[\w.,+-]+", re.ASCII)


@dataclass(frozen=True)
class Request:
    """Machines for a harvest. None leaves a value as the shipped job script has it.

    Attributes:
        n_gpus: Devices in all; with CPUs, processes.
        mode: `array` for independent workers and a merge, `ddp` for one job of communicating processes.
        gpus_per_node: Devices of a machine; for `ddp`.
        max_concurrent: Most workers that run at the same time; for `array`. None for as many as SLURM starts.
        partition: SLURM partition of all jobs.
        time: Time limit of a worker or of the DDP job, in SLURM's form.
        merge_time: Time limit of the merge.
        merge_mem: Memory of the merge, in SLURM's form.
        job_suffix: Text behind the names of the jobs.

    Raises:
        LaunchError: If a value makes no sense.
    """

    n_gpus: int
    mode: Mode = "array"
    gpus_per_node: int = 8
    max_concurrent: int | None = None
    partition: str | None = None
    time: str | None = None
    merge_time: str | None = None
    merge_mem: str | None = None
    job_suffix: str | None = None

    def __post_init__(self) -> None:
        for name in ("n_gpus", "gpus_per_node", "max_concurrent"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise LaunchError(f"--{name} must be at least 1, found {number}")
        if self.mode == "ddp" and self.max_concurrent is not None:
            raise LaunchError("--max_concurrent is for --mode array: the processes of a DDP job run all at once")
        self._check(("time", "merge_time"), _TIME, "minutes, M:SS, H:MM:SS or D-HH:MM:SS")
        self._check(("merge_mem",), _MEMORY, "a number with K, M, G or T behind it")
        self._check(("partition", "job_suffix"), _NAME, "letters, digits and any of _.,+-")
        if self.mode == "ddp" and self.n_gpus > self.gpus_per_node and self.n_gpus % self.gpus_per_node:
            raise LaunchError(
                f"--n_gpus {self.n_gpus} is no multiple of --gpus_per_node {self.gpus_per_node}: "
                "every machine of a DDP job has as many processes"
            )

    def _check(self, names: tuple[str, ...], form: re.Pattern[str], expected: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not form.fullmatch(value):
                raise LaunchError(f"--{name} must be {expected}, found {value!r}")

    @property
    def devices_per_node(self) -> int:
        """Processes of a DDP job on each machine."""
        return min(self.n_gpus, self.gpus_per_node)

    @property
    def n_nodes(self) -> int:
        """Machines of a DDP job."""
        return self.n_gpus // self.devices_per_node

    @property
    def array(self) -> str:
        """The tasks of an array job, in SLURM's form."""
        return f"0-{self.n_gpus - 1}" + (f"%{self.max_concurrent}" if self.max_concurrent else "")

    def job_name(self, name: str) -> str:
        """A job's name with the suffix behind it."""
        return f"{name}-{self.job_suffix}" if self.job_suffix else name
