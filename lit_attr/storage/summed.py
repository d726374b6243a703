"""How the tensors of a result come from sums: transposed, multiplied with read vectors, or scaled to all tokens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums


@dataclass(frozen=True)
class Summed:
    """One tensor of a result.

    Attributes:
        sums: The sums that it is made of; those of edges have a row for each source.
        factor: What they are multiplied with.
        target: Layer whose read vectors they are multiplied with; None where they are those of targets already.
        read: Read vectors of all layers.
    """

    sums: Float[Tensor, "..."]
    read: ReadVectors
    target: str | None = None
    factor: float = 1.0

    @property
    def shape(self) -> torch.Size:
        """Shape in the result, where edges have a row for each target."""
        if self.sums.ndim < 2:
            return self.sums.shape
        width = self.sums.shape[1] if self.target is None else self.read.vectors[self.target].shape[1]
        return torch.Size([width, self.sums.shape[0]])

    @cached_property
    def _vectors(self) -> Float[Tensor, "width target"] | None:
        return None if self.target is None else self.read.wide(self.target)

    def finished(self, sums: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """What some of the sources' sums become, still with a row for each source.

        Args:
            sums: Rows of `sums`, of this part or added up over several.
        """
        if self._vectors is not None:
            return sums.to(self._vectors.dtype) @ self._vectors
        return sums if self.factor == 1 else sums * self.factor

    @property
    def whole(self) -> Tensor:
        """The tensor as it is in the result, in the precision of the sums."""
        finished = self.finished(self.sums).to(self.sums.dtype)
        return finished.T if finished.ndim == 2 else finished


def summed_tensors(sums: Sums, read: ReadVectors, d_model: int, abs_factor: float) -> dict[str, Any]:
    """The tensors that add up over tokens, nested as in `Content`.

    Args:
        sums: The sums.
        read: Read vectors of the model.
        d_model: Width of the residual stream.
        abs_factor: What sums of `attr_abs` are multiplied with: the number of all tokens over that of theirs.
    """
    targets = [target for target in read.inputs if target != OUTPUT]

    def attr(target: str) -> dict[str, Summed]:
        name = read.inputs[target]
        reads = None if target == OUTPUT else target
        return {source: Summed(table, read, reads) for source, table in sums.attr.get(name, {}).items()}

    def attr_abs(target: str) -> dict[str, Summed]:
        return {source: Summed(table, read, factor=abs_factor) for source, table in sums.attr_abs[target].items()}

    def of_components(by_target: Mapping[str, Mapping[str, Summed]]) -> dict[str, dict[str, Summed]]:
        return {t: {s: block for s, block in by_source.items() if s != EMBED} for t, by_source in by_target.items()}

    def of_tokens(by_target: Mapping[str, Mapping[str, Summed]]) -> dict[str, Summed]:
        return {t: by_source[EMBED] for t, by_source in by_target.items() if EMBED in by_source}

    signed, absolute = {t: attr(t) for t in targets}, {t: attr_abs(t) for t in targets if t in sums.attr_abs}
    into_output = attr(OUTPUT)
    nothing = sums.logit_sq.new_zeros(()).expand(len(sums.logit_sq), d_model)
    return {
        "regular_attr": of_components(signed),
        "regular_attr_abs": of_components(absolute),
        "embed_attr": of_tokens(signed),
        "embed_attr_abs": of_tokens(absolute),
        "unembed_attr": {source: block for source, block in into_output.items() if source != EMBED},
        "embed_unembed_attr": into_output.get(EMBED, Summed(nothing, read)),
        "ci_sum": {layer: Summed(tensor, read) for layer, tensor in sums.ci.items()},
        "component_act_sq_sum": {layer: Summed(tensor, read) for layer, tensor in sums.act_sq.items()},
        "logit_sq_sum": Summed(sums.logit_sq, read),
        "embed_token_count": Summed(sums.token_count, read),
    }


def scale_of_abs(n_tokens: int, n_abs_tokens: int) -> float:
    """What sums of `attr_abs` are multiplied with, so that they stand for all tokens; 1 where there are none."""
    return n_tokens / n_abs_tokens if n_abs_tokens else 1.0


def map_nested(nested: Mapping[str, Any], function: Callable[[Summed], Any]) -> dict[str, Any]:
    """Another mapping of the same nesting."""
    return {
        key: map_nested(value, function) if isinstance(value, Mapping) else function(value)
        for key, value in nested.items()
    }
