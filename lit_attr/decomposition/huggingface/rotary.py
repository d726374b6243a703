"""Rotary positions of the models of `transformers`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.errors import UnsupportedModelError

# The others change their frequencies with the length of a sequence.
_KNOWN = ("default", "linear", "llama3", "yarn")


class HuggingFaceRotary:
    """Rotates the first entries of a head in pairs (j, j + half), as many as the model's tables are wide.

    Args:
        rotary: The model's own module, from positions to cosines and sines.

    Raises:
        UnsupportedModelError: If its frequencies depend on the length of the sequence.
    """

    def __init__(self, rotary: nn.Module) -> None:
        kind = getattr(rotary, "rope_type", "default")
        if kind not in _KNOWN:
            raise UnsupportedModelError(
                f"rotary positions of type {kind!r} are not known; known are {', '.join(_KNOWN)}"
            )
        self.rotary = rotary

    def __call__(
        self, x: Float[Tensor, "*axes vector width"], positions: Int[Tensor, "*places vector"]
    ) -> Float[Tensor, "*axes vector width"]:
        """Rotate each vector by the angles of its position."""
        cos, sin = (table.view(*positions.shape, -1) for table in self.rotary(x, positions.reshape(1, -1)))
        turned, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], -1)
        first, second = turned.chunk(2, -1)
        return torch.cat([turned * cos + torch.cat([-second, first], -1) * sin, rest], -1)
