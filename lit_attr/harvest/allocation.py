"""Which processes of a SLURM allocation belong together, where Lightning's own answer would be wrong.

Lightning takes every process that knows of `SLURM_NTASKS` for one of so many that srun started, unless the job is
called `bash` or `interactive`: then each is by itself. Both are wrong for some. In the shell of an interactive
allocation there is one process, whatever the job is called, and waiting for others never ends. Of what srun starts
inside such an allocation each process would harvest everything.
"""

import logging
import os
from collections.abc import Mapping

from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from lit_attr.errors import ConfigurationError

_log = logging.getLogger(__name__)


def slurm_correction(num_nodes: int) -> ClusterEnvironment | None:
    """The environment to give to a trainer inside a SLURM allocation; None where Lightning finds the right one.

    Args:
        num_nodes: Machines of the trainer.

    Raises:
        ConfigurationError: If several machines are asked for by a process that srun did not start.
    """
    if "SLURM_NTASKS" not in os.environ or TorchElasticEnvironment.detect():
        return None
    n_tasks = n_tasks_of_step(os.environ, has_terminal=os.isatty(0))
    if n_tasks > 1:
        return SLURMEnvironment() if SLURMEnvironment.job_name() in ("bash", "interactive") else None
    if n_tasks == 1:
        return None
    if num_nodes > 1:
        raise ConfigurationError(
            f"trainer.num_nodes is {num_nodes}, but this process was not started by srun, which starts one on each "
            "machine: write `srun` before the command, or use `lit-attr submit`"
        )
    _log.info(
        f"job {os.environ.get('SLURM_JOB_ID')}: this process was not started by srun, and harvests as on a machine "
        "without SLURM: --trainer.devices says how many processes, and nothing starts it again"
    )
    return LightningEnvironment()


def n_tasks_of_step(variables: Mapping[str, str], *, has_terminal: bool) -> int:
    """How many processes srun, or a batch job of one task, started together with this one.

    Args:
        variables: SLURM's, of a process inside an allocation.
        has_terminal: Whether the process reads from a terminal.

    Returns:
        The number; 0 for a process that is by itself: in a shell of an interactive allocation (salloc, srun --pty), or
        in a batch script that has several tasks and calls no srun.
    """
    n_tasks = int(variables["SLURM_NTASKS"])
    if "SLURM_STEP_ID" not in variables:  # a batch script has SLURM_PROCID, the shell of salloc has not
        return 1 if n_tasks == 1 and "SLURM_PROCID" in variables else 0
    n_step = int(variables.get("SLURM_STEP_NUM_TASKS", n_tasks))
    # A shell's variables are handed down to what srun starts from it; the terminal is not.
    is_shell = "SLURM_PTY_PORT" in variables and (has_terminal or n_step == 1)
    return 0 if is_shell else n_step
