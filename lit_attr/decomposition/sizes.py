"""Limits of the sizes in a run's configuration: a damaged number must not take all memory, or all time.

What a configuration asks for is compared with the tensors of the checkpoint before anything of that size is made.
Building the layers without numbers takes time all the same, so that their number has a limit of its own.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

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
