"""What stored sums are divided by when they are shown.

Values are normalised as `raw / source / target`: the source's summed causal importance (for a token, its occurrences)
and the target's root mean square (component activation or logit), as in goodfire-ai/spd.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.storage.file_content import Content
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.live import LiveSet

# Smaller denominators are raised to this.
_EPS = 1e-10
_ALL = slice(None)
# The place of one component or token id in stored tensors, of several that follow each other, or of any.
Places = int | slice | Tensor
# Tensors, or arrays of numpy, which are faster for few numbers.
Numbers = TypeVar("Numbers", bound=Any)


class Normalisation:
    """The scales of a result's sources and targets.

    Args:
        content: The content of a result.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._source_scales: dict[str, Tensor] = {}
        self._target_scales: dict[str, Tensor] = {}
        self._by_source_place: dict[str, Tensor] = {}
        self._by_target_place: dict[str, Tensor] = {}

    def apply(
        self,
        raw: Float[Tensor, "..."],
        source: str,
        target: str,
        sources: Places = _ALL,
        targets: Places = _ALL,
        out: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Raw attributions, divided by the scales of source and target.

        Args:
            raw: A tile with targets as rows and sources as columns, or a row or a column of it.
            source: Layer of the sources.
            target: Layer of the targets.
            sources: Places of the sources that `raw` is from.
            targets: Places of the targets that `raw` is to.
            out: Where the values are written; by default into new memory.
        """
        by_source = self._stored(self._by_source_place, source, self.of_sources, self._content.stored_sources)[sources]
        by_target = self._stored(self._by_target_place, target, self.of_targets, self._content.stored_targets)[targets]
        return divided(raw, by_source, by_target[:, None] if raw.ndim == 2 else by_target, out)

    @staticmethod
    def _stored(
        known: dict[str, Tensor],
        layer: str,
        scales: Callable[[str], Tensor],
        members: Callable[[str], LiveSet],
    ) -> Float[Tensor, " place"]:
        """The scales of the components that have a place, in their order."""
        if layer not in known:
            ids = members(layer).ids
            known[layer] = scales(layer) if ids is None else scales(layer)[ids]
        return known[layer]

    def of_sources(self, layer: str) -> Float[Tensor, " component"]:
        """What attributions from a layer are divided by: summed causal importances, or occurrences of tokens."""
        if layer not in self._source_scales:
            raw = self._content.embed_token_count.float() if layer == EMBED else self._content.ci_sum[layer]
            self._source_scales[layer] = widened(raw).clamp(min=_EPS)
        return self._source_scales[layer]

    def of_targets(self, layer: str) -> Float[Tensor, " component"]:
        """What attributions to a layer are divided by: root mean squares of activations, or of logits."""
        if layer not in self._target_scales:
            content = self._content
            squares = content.logit_sq_sum if layer == OUTPUT else content.component_act_sq_sum[layer]
            self._target_scales[layer] = (widened(squares) / max(content.n_tokens_processed, 1)).sqrt().clamp(min=_EPS)
        return self._target_scales[layer]


def divided(raw: Numbers, by_source: Numbers, by_target: Numbers, out: Numbers | None = None) -> Numbers:
    """Raw attributions, divided by the scales of their sources, and then by those of their targets.

    All normalised values are made here, in this order, so that they agree to the last bit however they are asked for.
    """
    values: Any = raw / by_source if out is None else torch.div(raw, by_source, out=out)
    values /= by_target
    return values


def widened(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Sums in half precision, which other programs may store, in single precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
