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

from lit_attr.harvest.processes import others_alive

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class StopSignals:
    """Notes that the process was told to stop; the work goes on to a place where it can.

    Attributes:
        received: The first signal; None before it. SLURM announces a time limit with one signal and enforces it with
            another, which must not be taken for a cancellation.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def install(self, trainer: Trainer) -> None:
        """Listen, in place of whoever listens, and of Lightning.

        Lightning's own listeners wait for other processes wherever a signal finds them, store a checkpoint that knows
        nothing of the sums, and at the end put those back that were there when they were installed: these.
        """
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread can
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Let those listen again who did before."""
        if threading.current_thread() is threading.main_thread():
            for number, before in self._before.items():
                signal.signal(number, before)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
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
    with others_alive():
        distributed.all_reduce(message, op=distributed.ReduceOp.MAX, group=group)
    return int(message)


def message_group(trainer: Trainer) -> distributed.ProcessGroup | None:
    """A group of all processes that talks between hosts; None where there is one process."""
    return distributed.new_group(backend="gloo") if trainer.world_size > 1 else None


def requeue(trainer: Trainer) -> None:
    """Ask SLURM to start the job again, where Lightning's settings allow it.

    Args:
        trainer: Knows its environment.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    if not trainer.is_global_zero or name is None:
        return
    try:
        subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:  # in a container there may be no scontrol
        _log.warning(f"SLURM did not requeue job {name}: {getattr(error, 'stderr', None) or error}")
    else:
        _log.info(f"asked SLURM to start job {name} again")
