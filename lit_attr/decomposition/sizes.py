"""Models without numbers: what a configuration asks for is seen before anything of its size is made.

A damaged number must not take all memory, or all time: a configuration is compared with the tensors of the checkpoint
first. Building the layers without numbers takes time all the same, so that their number has a limit of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lit_attr.errors import RunFormatError, reason
from lit_attr.lean_imports import compiler_later

# The largest vocabularies have 300,000 entries, and the deepest models 126 blocks.
MAX_WIDTH = 1 << 30
MAX_BLOCKS = 1000
Model = TypeVar("Model", bound=nn.Module)


def without_numbers(build: Callable[[], Model], where: str) -> Model:
    """Build a model whose tensors have names, shapes and dtypes, but no numbers: that takes no memory.

    Args:
        build: Builds the model.
        where: Name of its configuration, for messages.

    Raises:
        RunFormatError: If a tensor would have more numbers than can be counted.
    """
    try:
        with torch.device("meta"), compiler_later():
            return build()
    except (RuntimeError, OverflowError) as error:
        raise RunFormatError(f"{where} is the configuration of no model: {reason(error)}") from error


@contextmanager
def running_without_numbers() -> Iterator[None]:
    """Let models without numbers run forwards and backwards: every tensor has the shape that it would have."""
    with torch.device("meta"), compiler_later(), _Yes():
        yield


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which a device computes in the dtype of its tensors; without numbers there is no autocast.

    Args:
        device: Where tensors are.
    """
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class _Yes(TorchDispatchMode):
    """Answers what the code of a model asks of tensors without numbers: whether a mask is empty, and the like."""

    def __torch_dispatch__(
        self,
        func: Callable,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return args[0].dtype == torch.bool or 1
        return func(*args, **(kwargs or {}))
