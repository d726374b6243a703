"""The processes of a trainer find each other, in bounded time and not in silence."""

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.constants import default_pg_timeout
from torch.distributed.distributed_c10d import _set_pg_timeout

from lit_attr.errors import InterruptedHarvestError
from lit_attr.harvest.preemption import end_at_once

_log = logging.getLogger(__name__)
# Longest time in which a waiting process says nothing.
_SECONDS_OF_SILENCE = 60.0
# Time in which the main thread may follow a signal by itself.
_SECONDS_TO_END = 1.0


def join_in_time(trainer: Trainer, patience: float, joined: Callable[[], None]) -> None:
    """Bound how long the processes of a trainer wait for each other when it starts.

    Args:
        trainer: The trainer, before its loop.
        patience: Seconds that they wait; a `timeout` that a user has given to `DDPStrategy` is left alone.
        joined: What is done once all are there.
    """
    strategy = trainer.strategy
    if trainer.world_size == 1 or not isinstance(strategy, DDPStrategy) or strategy.cluster_environment is None:
        return
    is_bounded = strategy._timeout == default_pg_timeout
    if is_bounded:
        strategy._timeout = timedelta(seconds=patience)
    join, environment = strategy.setup_environment, strategy.cluster_environment

    def setup_environment() -> None:
        host, port = environment.main_address, environment.main_port
        limit = (strategy._timeout or default_pg_timeout).total_seconds()
        begin = time.monotonic()
        place = f"{trainer.world_size} processes of {trainer.num_nodes} machines meet at {host}, port {port}"
        every = min(limit / 4, _SECONDS_OF_SILENCE)
        with _saying(f"waiting until {place}", every), _hearing_signals(trainer):
            try:
                _resolve(host, limit)
                join()
                if is_bounded:  # only the start: later on some may be slow, and silence is noticed otherwise
                    _set_pg_timeout(default_pg_timeout)
                joined()
            except RuntimeError as error:  # torch's, whatever the cause
                raise InterruptedHarvestError(
                    f"{place}, but not all have come within {time.monotonic() - begin:.0f} s: see the messages of the "
                    "others; that the host's name means the same address everywhere; and, where a machine has several "
                    "networks, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME. The limit is --writer.patience_minutes. "
                    f"Seen here: {str(error).splitlines()[0]}"
                ) from error

    strategy.setup_environment = setup_environment  # type: ignore[method-assign]


def _resolve(host: str, seconds: float) -> None:
    """Wait until a name has an address, which a machine that is just starting may not have yet.

    Raises:
        InterruptedHarvestError: If it has none by then.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            if time.monotonic() > end:
                raise InterruptedHarvestError(
                    f"{socket.gethostname()} could not resolve {host!r}, the host of the first process, for "
                    f"{seconds:.0f} s ({error.strerror}): is MASTER_ADDR, or the job's first machine, right?"
                ) from error
            time.sleep(1.0)
        else:
            return


@contextmanager
def _saying(what: str, seconds: float) -> Iterator[None]:
    """Say what is waited for, as often as that, while it is."""
    begin, ended = time.monotonic(), threading.Event()

    def say() -> None:
        while not ended.wait(seconds):
            _log.info(f"{what}, for {time.monotonic() - begin:.0f} s so far")

    threading.Thread(target=say, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _hearing_signals(trainer: Trainer) -> Iterator[None]:
    """End where a signal says so, although the main thread waits in torch, which hears none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()
    hears, tells = socket.socketpair()
    tells.settimeout(0)

    def hear() -> None:
        while number := hears.recv(1):
            if not ended.wait(_SECONDS_TO_END):
                end_at_once(trainer, number[0])
        hears.close()

    threading.Thread(target=hear, daemon=True).start()
    before = signal.set_wakeup_fd(tells.fileno())
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        tells.close()
