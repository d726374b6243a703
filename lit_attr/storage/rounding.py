"""Sums of edges in two bytes instead of four: how they are rounded, and how far that moved them.

Edges into components are rounded to bfloat16, which has the range of float32, so that small numbers keep as many digits
as large ones, and rows need no scales. What leads into the output stays float32: an edge into an output token is a sum
over the residual stream whose terms cancel, so that a bound on their errors would be none on the edge's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor

from lit_attr.errors import StorageError, shown

# The keys of a result whose tensors may be rounded.
ROUNDED_KEYS = ("regular_attr", "regular_attr_abs", "embed_attr", "embed_attr_abs")
_DTYPE = "bfloat16"


@dataclass(frozen=True, eq=False)
class Rounding:
    """What rounding has done to the sums of edges into components.

    Attributes:
        relative_error: The largest error of any of them, measured, as a share of the number in float32; zero before
            anything was rounded. Float32, rounded up.
    """

    relative_error: Float[Tensor, ""]

    @classmethod
    def begin(cls) -> "Rounding":
        """Nothing is rounded yet."""
        return cls(torch.zeros(()))

    @classmethod
    def from_entry(cls, entry: object) -> "Rounding":
        """Read what a file holds under `rounding`.

        Raises:
            StorageError: If it is not what `to_entry` gives.
        """
        if not isinstance(entry, Mapping) or entry.keys() != {"dtype", "relative_error"}:
            raise StorageError(f"rounding: expected dtype and relative_error, found {shown(entry)}")
        dtype, error = entry["dtype"], entry["relative_error"]
        if dtype != _DTYPE:
            raise StorageError(f"rounding: expected dtype {_DTYPE}, found {shown(dtype)}")
        if not (isinstance(error, Tensor) and error.dtype == torch.float32 and not error.ndim and 0 <= error <= 1):
            raise StorageError(f"rounding: expected a relative_error of 0 to 1, float32, found {shown(error)}")
        return cls(error)

    def to_entry(self) -> dict[str, Any]:
        """What a file holds under `rounding`."""
        return {"dtype": _DTYPE, "relative_error": self.relative_error}

    @property
    def plain(self) -> dict[str, Any]:
        """Its entry in plain types."""
        return {"dtype": _DTYPE, "relative_error": float(self.relative_error)}

    def rounded(self, numbers: Float[Tensor, "..."]) -> BFloat16[Tensor, "..."]:
        """Numbers in bfloat16; the largest relative error grows to theirs where that is larger.

        Args:
            numbers: Sums, which are finite in float32.
        """
        exact = numbers.float()
        rounded = exact.bfloat16()
        if exact.numel():
            errors = rounded.float().sub_(exact).abs_().div_(exact.abs()).nan_to_num_(nan=0.0)  # of zero by zero
            largest = errors.max()
            if largest > self.relative_error:  # the next number, since the quotient was rounded itself
                self.relative_error.copy_(largest.nextafter(largest.new_tensor(torch.inf)).clamp(max=1))
        return rounded

    def __str__(self) -> str:
        """In words, with the error rounded up."""
        percent = math.ceil(float(self.relative_error) * 1e4) / 100
        return f"edges into components were rounded to {_DTYPE}, each by at most {percent:g} %"
