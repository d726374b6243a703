"""The blocks of a result, one for each pair of layers, and what their numbers are divided by.

Values are normalised as `raw / source / target`: the source's summed causal importance (for a token, its occurrences)
and the target's root mean square (component activation or logit), as in goodfire-ai/spd. An attribution to an output
token is the product of its unembedding column with the attributions to the residual stream, which is exact.
"""

from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.storage.content import Content
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import Measure, check_metric
from lit_attr.topology.words import AttrMetric

# Smaller denominators are raised to this.
_EPS = 1e-10
# Numbers that one piece of a product converts: bounds its temporary, 64 MB in float32.
_PIECE = 1 << 24
_ALL = slice(None)
# One component or token id of a layer, or a part of them.
Places = int | slice
# Tensors, or arrays of numpy, which are faster for few numbers.
Numbers = TypeVar("Numbers", bound=Any)


class Blocks:
    """Attributions by pair of layers.

    Args:
        content: What was harvested.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self._source_scales: dict[str, Tensor] = {}
        self._target_scales: dict[str, Tensor] = {}

    def size(self, layer: str) -> int:
        """Number of components of a layer, or of token ids; 0 for an unknown layer."""
        if layer in (EMBED, OUTPUT):
            return len(self.content.embed_token_count)
        return len(self.content.ci_sum.get(layer, ()))

    def source_layers(self, target: str, metric: AttrMetric) -> list[str]:
        """The layers that feed a layer, in the order in which they are asked; empty for what nothing feeds."""
        regular, embed = self._by_metric(metric)
        if target == OUTPUT:
            return [*self.content.unembed_attr, EMBED] if metric == "attr" else []
        return [*regular.get(target, ()), *([EMBED] if target in embed else [])]

    def target_layers(self, source: str, metric: AttrMetric) -> list[str]:
        """The layers that a layer feeds, in the order in which they are asked; empty for what feeds nothing."""
        regular, embed = self._by_metric(metric)
        by_component = (layer for layer, by_source in regular.items() if source in by_source)
        layers = [*(embed if source == EMBED else by_component)]
        feeds_output = source == EMBED or source in self.content.unembed_attr
        return [*layers, OUTPUT] if metric == "attr" and feeds_output else layers

    def row(self, source: str, target: str, measure: Measure, index: int) -> Float[Tensor, " _source"]:
        """Attributions from a whole layer to one component or output token."""
        if target == OUTPUT:
            block = _wide(self._to_residual(source))
            raw = _product(self.content.w_unembed[:, index], block, block.dtype)
        else:
            raw = _wide(self._block(source, target, measure.metric)[index])
        return self.normalized(raw, source, target, targets=index) if measure.normalized else raw

    def column(self, source: str, target: str, measure: Measure, index: int) -> Float[Tensor, " _target"]:
        """Attributions to a whole layer from one component or token."""
        if target == OUTPUT:
            column = _wide(self._to_residual(source)[:, index])
            raw = _product(column, self.content.w_unembed, column.dtype)
        else:
            raw = _wide(self._block(source, target, measure.metric)[:, index])
        return self.normalized(raw, source, target, sources=index) if measure.normalized else raw

    def tile(
        self, source: str, target: str, measure: Measure, sources: slice = _ALL, targets: slice = _ALL
    ) -> Float[Tensor, "_target _source"]:
        """Attributions of a part of one pair of layers; products where the target is the output.

        Args:
            source: Layer that feeds the target.
            target: Layer that is fed.
            measure: Which numbers; raw ones may be the file's own bytes, which must not be written to.
            sources: Components or token ids of the source.
            targets: Components or token ids of the target.
        """
        if target == OUTPUT:
            block = _wide(self._to_residual(source)[:, sources])
            raw = self.content.w_unembed[:, targets].to(block.dtype).T @ block
        else:
            raw = _wide(self._block(source, target, measure.metric)[targets, sources])
        return self.normalized(raw, source, target, sources, targets) if measure.normalized else raw

    def normalized(
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
            sources: Which of the source layer `raw` is from.
            targets: Which of the target layer `raw` is to.
            out: Where the values are written; by default into new memory.
        """
        by_target = self.target_scale(target)[targets]
        return divided(raw, self.source_scale(source)[sources], by_target[:, None] if raw.ndim == 2 else by_target, out)

    def source_scale(self, layer: str) -> Float[Tensor, " component"]:
        """What attributions from a layer are divided by: summed causal importances, or occurrences of tokens."""
        if layer not in self._source_scales:
            raw = self.content.embed_token_count.float() if layer == EMBED else self.content.ci_sum[layer]
            self._source_scales[layer] = _wide(raw).clamp(min=_EPS)
        return self._source_scales[layer]

    def target_scale(self, layer: str) -> Float[Tensor, " component"]:
        """What attributions to a layer are divided by: root mean squares of activations, or of logits."""
        if layer not in self._target_scales:
            content = self.content
            squares = content.logit_sq_sum if layer == OUTPUT else content.component_act_sq_sum[layer]
            self._target_scales[layer] = (_wide(squares) / max(content.n_tokens_processed, 1)).sqrt().clamp(min=_EPS)
        return self._target_scales[layer]

    def _block(self, source: str, target: str, metric: AttrMetric) -> Float[Tensor, "_target _source"]:
        regular, embed = self._by_metric(metric)
        return embed[target] if source == EMBED else regular[target][source]

    def _to_residual(self, source: str) -> Float[Tensor, "d_model _source"]:
        return self.content.embed_unembed_attr if source == EMBED else self.content.unembed_attr[source]

    def _by_metric(self, metric: AttrMetric) -> tuple:
        check_metric(metric)
        content = self.content
        if metric == "attr":
            return content.regular_attr, content.embed_attr
        return content.regular_attr_abs, content.embed_attr_abs


def divided(raw: Numbers, by_source: Numbers, by_target: Numbers, out: Numbers | None = None) -> Numbers:
    """Raw attributions, divided by the scales of their sources, and then by those of their targets.

    All normalised values are made here, in this order, so that they agree to the last bit however they are asked for.
    """
    values: Any = raw / by_source if out is None else torch.div(raw, by_source, out=out)
    values /= by_target
    return values


def _wide(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Sums in half precision, which other programs may store, in single precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _product(
    vector: Float[Tensor, " d_model"], matrix: Float[Tensor, "d_model n"], dtype: torch.dtype
) -> Float[Tensor, " n"]:
    """Their product; the matrix may be a mapped file of another precision, and is converted piece by piece."""
    step = max(_PIECE // max(len(matrix), 1), 1)
    return torch.cat([vector.to(dtype) @ piece.to(dtype) for piece in matrix.split(step, 1)])
