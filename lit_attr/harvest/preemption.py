"""Being told to stop: signals, the end of child processes, and a request to be started again."""

import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from enum import IntEnum
from types import FrameType

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from lit_attr import early_signal
from lit_attr.errors import InterruptedHarvestError
from lit_attr.parts.worker_record import slurm_job

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
# Exit code of a process that Ctrl-C ended, by the convention of shells.
CTRL_C_EXIT_CODE = 128 + signal.SIGINT
# Seconds that child processes have to end by themselves, and again once they were told to.
_PATIENCE = 2.0
# Seconds that the first process has to ask for another job, which may still import: srun ends all once one has ended.
_TIME_TO_ASK = 30.0
# No warning of a job's end is sent earlier, but where a site or user asks for it.
_EARLIEST_WARNING = timedelta(seconds=600)


class Decision(IntEnum):
    """What happens at the end of a step; the greatest that any process decides counts for all."""

    GO_ON = 0
    COMMIT = 1
    LOOK = 2  # commit, and end the harvest if it is settled
    REQUEUE = 3  # commit, stop, and ask for another job
    STOP = 4


# SIGUSR1 announces the end of a job's time. SIGTERM is how a job is cancelled, and one that is preempted is put back by
# SLURM itself: nobody must ask for that. SIGINT is Ctrl-C.
_DECISIONS = {
    signal.SIGUSR1: Decision.REQUEUE,
    signal.SIGTERM: Decision.STOP,
    signal.SIGINT: Decision.STOP,
}


class StopSignals:
    """Stops the process where it was told to: at once while it loads, after `defer` where its work can be committed.

    Attributes:
        received: The first signal; None before it. SLURM announces a time limit with one signal and enforces it with
            another, which must not be taken for a cancellation.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._deferred = False
        self._speaks = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def install(self, trainer: Trainer) -> None:
        """Listen, in place of whoever listens, and of Lightning.

        Lightning's own listeners wait for other processes wherever a signal finds them, store a checkpoint that knows
        nothing of the sums, and at the end put those back that were there when they were installed: these.
        """
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self.received = None
        self._deferred = False
        self._speaks = trainer.is_global_zero
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread can
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # a shell's background process does not hear Ctrl-C
                self._before[number] = signal.signal(number, self._hear)

    def take_up_earlier(self) -> None:
        """Obey a signal that came before anybody listened, as if it came now.

        Raises:
            InterruptedHarvestError: If there was one.
        """
        if early_signal.take():
            self._hear(signal.SIGUSR1, None)

    @property
    def decision(self) -> Decision:
        """What the signal asks for at the end of a step."""
        return Decision.GO_ON if self.received is None else _DECISIONS[self.received]

    def defer(self) -> None:
        """Only note signals from now on: there will be something to commit, and a place where all processes agree.

        Raises:
            InterruptedHarvestError: If there was one that somebody else's code has swallowed.
        """
        if self.received is not None:
            raise self._stopped()
        self._deferred = True

    def restore(self) -> None:
        """Let those listen again who did before."""
        if threading.current_thread() is threading.main_thread():
            for number, before in self._before.items():
                signal.signal(number, before or signal.SIG_DFL)  # None: a listener that is not Python's
        self._before.clear()

    @property
    def asks_to_requeue(self) -> bool:
        """Whether the end of the job was announced while there was nothing to commit yet."""
        return self.received is signal.SIGUSR1 and not self._deferred

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:  # the second Ctrl-C is for who listened before
            signal.signal(number, self._before[signal.SIGINT] or signal.SIG_DFL)
        if self.received is not None:
            return
        self.received = signal.Signals(number)
        if not self._deferred:
            raise self._stopped()
        if number == signal.SIGINT and self._speaks:
            # Not through `print`, whose buffer may be in use where a signal comes.
            os.write(2, b"\nlit_attr: Ctrl-C: committing after this batch; another Ctrl-C stops at once\n")

    def _stopped(self) -> InterruptedHarvestError:
        return _stopped_by(self.received)


def _stopped_by(number: signal.Signals | None) -> InterruptedHarvestError:
    code = CTRL_C_EXIT_CODE if number is signal.SIGINT else InterruptedHarvestError.exit_code
    name = number.name if number else "a signal"
    return InterruptedHarvestError(
        f"stopped by {name} before anything new was committed; the same command continues", code
    )


def end_at_once(trainer: Trainer, number: int) -> None:
    """End the process, from another thread, where its main thread hears no signal.

    Args:
        trainer: The trainer, which has nothing to commit yet.
        number: The signal; others than those that stop a harvest are left alone.
    """
    if number not in _SIGNALS:
        return
    end_children(trainer)
    if number == signal.SIGUSR1:
        requeue(trainer)
    error = _stopped_by(signal.Signals(number))
    os.write(2, f"lit-attr: error: {error}\n".encode())
    os._exit(error.exit_code)


@contextmanager
def stopping_at_once(trainer: Trainer) -> Iterator[None]:
    """End promptly, and with one line, where a signal comes before or after a `StorageWriter` listens.

    Args:
        trainer: The trainer that is used inside.

    Raises:
        InterruptedHarvestError: If there is one.
    """
    signals = StopSignals()
    signals.install(trainer)
    try:
        signals.take_up_earlier()
        yield
    except Exception as error:
        if signals.asks_to_requeue and requeue(trainer, has_begun=False) and not trainer.is_global_zero:
            time.sleep(_TIME_TO_ASK)
        if (interruption := _interruption_behind(error)) is not None:
            raise interruption from interruption.__cause__
        raise
    finally:
        signals.restore()


def _interruption_behind(error: BaseException | None) -> InterruptedHarvestError | None:
    """What stopped the process, where code that was just opening a file took it for a fault of that file."""
    while error is not None and not isinstance(error, InterruptedHarvestError):
        error = error.__cause__ or error.__context__
    return error


def end_children(trainer: Trainer) -> None:
    """Let no process outlive this one that Lightning started from it.

    Args:
        trainer: The trainer, whose loop has ended with an exception.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    children = list(launcher.procs)
    launcher.procs.clear()  # Lightning's observer of this list would kill this process once a child has failed
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        for child in children:
            if number is not None and child.poll() is None:
                child.send_signal(number)
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_PATIENCE)


def requeue(trainer: Trainer, *, has_begun: bool = True) -> bool:
    """Ask SLURM to start the job again, where Lightning's settings allow it.

    Args:
        trainer: The trainer, which knows its environment; the first of its processes asks.
        has_begun: Whether the job has come to its first batch. If not, and its time limit leaves no time before the
            warning of its end, the next would end in the same way, for ever: it is not asked for.

    Returns:
        Whether the job will be started again, as far as this process knows.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return False
    name = slurm_job()
    if name is None or not trainer.is_global_zero:
        return name is not None
    if not has_begun and _ends_before_it_begins(name):
        _log.warning(f"not asking SLURM to start job {name} again: its time limit is over before anything can be done")
        return False
    try:
        subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:  # in a container there may be no scontrol
        _log.warning(f"SLURM did not requeue job {name}: {getattr(error, 'stderr', None) or error}")
        return False
    _log.info(f"asked SLURM to start job {name} again")
    return True


def _ends_before_it_begins(job: str) -> bool:
    """Whether a job that is warned of its end now has run for less time than it has left, which is little."""
    try:
        done = subprocess.run(
            ["scontrol", "show", "job", "--oneliner", job], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    known = re.search(r"\bStartTime=([\d:T-]+) EndTime=([\d:T-]+)", done.stdout)
    if known is None:
        return False
    now = datetime.now()  # SLURM's times are local ones
    start, end = (datetime.fromisoformat(time) for time in known.groups())
    return now - start < end - now < _EARLIEST_WARNING
