"""Work that one process does for all."""

from collections.abc import Callable
from typing import Any, TypeVar

from lightning.pytorch import Trainer

from lit_attr.errors import LitAttrError

_Result = TypeVar("_Result")


def on_first_process(trainer: Trainer, action: Callable[[], _Result]) -> _Result:
    """Do something on the first process, and give its result, or its mistake, to all.

    Args:
        trainer: Knows the processes.
        action: Returns something that can be pickled.

    Raises:
        LitAttrError: On every process, where the action raised one on the first.
    """
    outcome: tuple[Any, LitAttrError | None] = (None, None)
    if trainer.is_global_zero:
        try:
            outcome = (action(), None)
        except LitAttrError as error:
            outcome = (None, error)
    result, mistake = trainer.strategy.broadcast(outcome)
    if mistake is not None:
        raise mistake
    return result
