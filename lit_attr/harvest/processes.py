"""Work that one process does for all, or each for itself, with mistakes shared by all."""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy
from torch import distributed

from lit_attr.errors import InterruptedHarvestError, LitAttrError
from lit_attr.harvest.watch import Meeting, ProcessWatch, interrupted

_Result = TypeVar("_Result")
# How long messages may take: one process may tokenize, or write a result, for hours while others wait. What bounds
# their waiting is the silence of another.
_NO_LIMIT = timedelta(days=1000)
# Seconds in which the reason may arrive for which another process is gone.
_REASON_SECONDS = 8.0


@dataclass(frozen=True)
class Processes:
    """All processes of a trainer, which exchange messages.

    Attributes:
        group: The processes as torch knows them; None where there is one.
        watch: Notices that another has ended or is silent; None where nobody watches.
    """

    group: distributed.ProcessGroup | None
    watch: ProcessWatch | None

    @classmethod
    def of(cls, trainer: Trainer, patience: float | None = None) -> "Processes":
        """The processes of a trainer, once they are connected; all of them ask at the same time.

        Args:
            trainer: The trainer.
            patience: Seconds of silence after which a process is given up; None to watch nobody.
        """
        if trainer.world_size == 1:
            return cls(None, None)
        strategy = trainer.strategy
        watch = None
        if patience is not None and isinstance(strategy, ParallelStrategy):
            watch = _watch(strategy, trainer.world_size, patience)
        return cls(distributed.new_group(backend="gloo", timeout=_NO_LIMIT), watch)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Talk to the other processes.

        Raises:
            InterruptedHarvestError: If one of them is gone.
        """
        if self.watch is not None and (reason := self.watch.reason()) is not None:
            raise interrupted(reason)
        try:
            yield
        except torch.OutOfMemoryError:  # of this process
            raise
        except RuntimeError as error:  # torch's, whatever the cause
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> InterruptedHarvestError:
        """Why a process cannot be talked to."""
        reason = None if self.watch is None else self.watch.reason(_REASON_SECONDS)
        seen = f"another process has ended, see its message. Seen here: {str(error).splitlines()[0]}"
        return interrupted(reason or seen)

    def greatest(self, number: int) -> int:
        """The greatest number that any process has.

        Args:
            number: The number of this process.

        Raises:
            InterruptedHarvestError: If a process is gone.
        """
        if self.group is None:
            return number
        message = torch.tensor([number])
        with self.alive():
            distributed.all_reduce(message, op=distributed.ReduceOp.MAX, group=self.group)
        return int(message)

    def gathered(self, value: _Result) -> list[_Result]:
        """The values of all processes, in the order of their ranks.

        Args:
            value: The value of this process; can be pickled.

        Raises:
            InterruptedHarvestError: If a process is gone.
        """
        if self.group is None:
            return [value]
        values: list[Any] = [None] * distributed.get_world_size(self.group)
        with self.alive():
            distributed.all_gather_object(values, value, group=self.group)
        return values

    def on_first(self, action: Callable[[], _Result]) -> _Result:
        """Do something on the first process, and give its result, or its mistake, to all.

        Args:
            action: What to do; returns something that can be pickled.

        Raises:
            LitAttrError: On every process, where the action raised one on the first.
        """
        outcome: list[Any] = [None, None]
        if self.group is None or distributed.get_rank(self.group) == 0:
            try:
                outcome = [action(), None]
            except InterruptedHarvestError:
                raise  # at once: the others may take long to get here, and were told to stop as well
            except LitAttrError as error:
                outcome = [None, error]
        if self.group is not None:
            with self.alive():
                distributed.broadcast_object_list(outcome, src=0, group=self.group)
        result, mistake = outcome
        if mistake is not None:
            raise mistake
        return result

    def on_each(self, action: Callable[[], _Result]) -> _Result:
        """Do something on each process, and let the mistake of any stop all: nobody waits for one that has given up.

        Args:
            action: What to do.

        Raises:
            LitAttrError: On every process, where the action raised one on any.
        """
        result: Any = None
        mistake: LitAttrError | None = None
        try:
            result = action()
        except InterruptedHarvestError:
            raise  # at once, as in `on_first`
        except LitAttrError as error:
            mistake = error
        if raised := [error for error in (mistake, *self.gathered(mistake)) if error is not None]:
            raise raised[0]
        return result

    def leave(self) -> None:
        """Need the others no more."""
        if self.watch is not None:
            self.watch.close()

    def give_up(self, error: BaseException) -> BaseException:
        """Tell the others that this process ends early.

        Args:
            error: What ends it.

        Returns:
            The error or, where it is torch's own about the loss of another process, what is known of that.
        """
        if isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            error = self._lost(error)
        if self.watch is not None:
            self.watch.fail(str(error) or type(error).__name__)
        return error


def group_of_shard(shard: int, n_shards: int) -> distributed.ProcessGroup | None:
    """The processes of one target shard, which add up their sums; all processes ask at the same time.

    Args:
        shard: The shard of this process: process r is of shard `r % n_shards`.
        n_shards: Among how many shards the processes are dealt out.

    Returns:
        The group; None for all processes, where there is one shard.
    """
    if n_shards == 1 or not _has_groups():
        return None
    ranks = range(distributed.get_world_size())
    return [distributed.new_group(list(ranks[first::n_shards])) for first in range(n_shards)][shard]


def _watch(strategy: ParallelStrategy, n_processes: int, patience: float) -> ProcessWatch | None:
    """Begin to watch the other processes; all begin at the same time."""
    if strategy.cluster_environment is None:
        return None
    listener: socket.socket | None = None
    if strategy.global_rank == 0:
        ipv6 = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        listener = socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=ipv6)
    port, token = strategy.broadcast((listener.getsockname()[1] if listener else 0, secrets.token_hex(16)))
    meeting = Meeting(strategy.cluster_environment.main_address, port, token)
    return ProcessWatch(strategy.global_rank, n_processes, patience, meeting, listener)


@contextmanager
def leaving_groups() -> Iterator[None]:
    """Give up all groups of processes at the end, when nobody needs them any more, and end at once after a mistake.

    Lightning gives up those of NCCL alone. Threads of gloo that outlive the interpreter may abort a process whose work
    is done (pytorch/pytorch#179291), and the end of a group may wait for processes that are gone.
    """
    try:
        yield
    except LitAttrError as error:
        if not _has_groups():
            raise
        sys.stdout.flush()
        print(f"lit-attr: error: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    if _has_groups():
        distributed.destroy_process_group()


def _has_groups() -> bool:
    return distributed.is_available() and distributed.is_initialized()
