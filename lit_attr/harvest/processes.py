"""Work that one process does for all, or each for itself, with mistakes shared by all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer
from torch import distributed

from lit_attr.errors import InterruptedHarvestError, LitAttrError

_Result = TypeVar("_Result")


@contextmanager
def others_alive() -> Iterator[None]:
    """Talk to the other processes.

    Raises:
        InterruptedHarvestError: If one of them is gone.
    """
    try:
        yield
    except RuntimeError as error:  # torch's, whatever the cause
        raise InterruptedHarvestError(
            "another process has ended, see its message; the same command continues from what is committed. Seen here: "
            f"{str(error).splitlines()[0]}"
        ) from error


def message_group(trainer: Trainer) -> distributed.ProcessGroup | None:
    """A group of all processes for messages between hosts; None where there is one process."""
    return distributed.new_group(backend="gloo") if trainer.world_size > 1 else None


def greatest(number: int, group: distributed.ProcessGroup | None) -> int:
    """The greatest number that any process has.

    Args:
        number: The number of this process.
        group: All processes; None where there is one.

    Raises:
        InterruptedHarvestError: If one of them is gone.
    """
    if group is None:
        return number
    message = torch.tensor([number])
    with others_alive():
        distributed.all_reduce(message, op=distributed.ReduceOp.MAX, group=group)
    return int(message)


def leave_groups() -> None:
    """Give up all groups of processes, once nobody needs them any more.

    Lightning does it for NCCL alone. Threads of gloo that outlive the interpreter may abort the process, whose work is
    done (pytorch/pytorch#179291).
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def gathered(value: _Result, group: distributed.ProcessGroup | None) -> list[_Result]:
    """The values of all processes, in the order of their ranks.

    Args:
        value: The value of this process; can be pickled.
        group: All processes; None where there is one.

    Raises:
        InterruptedHarvestError: If one of them is gone.
    """
    if group is None:
        return [value]
    values: list[Any] = [None] * distributed.get_world_size(group)
    with others_alive():
        distributed.all_gather_object(values, value, group=group)
    return values


def on_first_process(trainer: Trainer, action: Callable[[], _Result]) -> _Result:
    """Do something on the first process, and give its result, or its mistake, to all.

    Args:
        trainer: The trainer, which knows the processes.
        action: What to do; returns something that can be pickled.

    Raises:
        LitAttrError: On every process, where the action raised one on the first.
    """
    outcome: tuple[Any, LitAttrError | None] = (None, None)
    if trainer.is_global_zero:
        try:
            outcome = (action(), None)
        except InterruptedHarvestError:
            raise  # at once: the others may take long to get here, and were told to stop as well
        except LitAttrError as error:
            outcome = (None, error)
    with others_alive():
        result, mistake = trainer.strategy.broadcast(outcome)
    if mistake is not None:
        raise mistake
    return result


def on_each_process(group: distributed.ProcessGroup | None, action: Callable[[], _Result]) -> _Result:
    """Do something on each process, and let the mistake of any stop all: nobody waits for one that has given up.

    Args:
        group: All processes; None where there is one.
        action: What to do.

    Raises:
        LitAttrError: On every process, where the action raised one on any.
    """
    result: Any = None
    mistake: LitAttrError | None = None
    try:
        result = action()
    except InterruptedHarvestError:
        raise  # at once, as in `on_first_process`
    except LitAttrError as error:
        mistake = error
    if raised := [error for error in (mistake, *gathered(mistake, group)) if error is not None]:
        raise raised[0]
    return result
