"""Being told to stop: signals, an agreement of all processes, and a request to be started again."""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from types import FrameType

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch import distributed

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class StopSignals:
    """Notes that the process was told to stop; the work goes on to a place where it can.

    Attributes:
        received: The last signal; None before the first.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def install(self) -> None:
        """Listen, in place of whoever listens; again after Lightning has put its own listeners in place."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread can
        for number in _SIGNALS:
            before = signal.signal(number, self._note)
            self._before.setdefault(number, before)

    def restore(self) -> None:
        """Let those listen again who did before."""
        if threading.current_thread() is threading.main_thread():
            for number, before in self._before.items():
                signal.signal(number, before)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)


def agree(wish: int, group: distributed.ProcessGroup | None) -> int:
    """The greatest wish of all processes.

    Args:
        wish: Of this process.
        group: Of all processes, for messages between hosts; None where there is one process.
    """
    if group is None:
        return wish
    message = torch.tensor([wish])
    distributed.all_reduce(message, op=distributed.ReduceOp.MAX, group=group)
    return int(message)


def message_group(trainer: Trainer) -> distributed.ProcessGroup | None:
    """A group of all processes that talks between hosts; None where there is one process."""
    return distributed.new_group(backend="gloo") if trainer.world_size > 1 else None


def requeue(trainer: Trainer, received: signal.Signals | None) -> None:
    """Ask SLURM to start the job again, where it announced its end and Lightning's settings allow it.

    SIGTERM asks for nothing: it is how a job is cancelled, and a preempted one is put back by SLURM itself.

    Args:
        trainer: Knows its environment.
        received: The signal of this process; None if only another one had it.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue or received == signal.SIGTERM:
        return
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    if not trainer.is_global_zero or name is None:
        return
    result = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True, check=False)
    if result.returncode:
        _log.warning(f"SLURM did not requeue job {name}: {result.stderr.strip()}")
    else:
        _log.info(f"asked SLURM to start job {name} again")
