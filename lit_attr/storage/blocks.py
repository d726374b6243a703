"""The blocks of a result, one for each pair of layers.

An attribution to an output token is the product of its unembedding column with the attributions to the residual stream,
which is exact.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.storage.file_content import Content
from lit_attr.storage.normalisation import Normalisation, widened
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import AttrMetric

# Numbers that one piece of a product converts: bounds its temporary, 64 MB in float32.
_PIECE = 1 << 24
_ALL = slice(None)


class Blocks:
    """Attributions by pair of layers.

    Whatever is asked for a metric raises a `ConfigurationError` if it was not harvested.

    Args:
        content: What was harvested.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.normalisation = Normalisation(content)

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
            block = widened(self._to_residual(source))
            raw = _product(self.content.w_unembed[:, index], block, block.dtype)
        else:
            raw = widened(self._block(source, target, measure.metric)[index])
        return self.normalisation.apply(raw, source, target, targets=index) if measure.normalized else raw

    def column(self, source: str, target: str, measure: Measure, index: int) -> Float[Tensor, " _target"]:
        """Attributions to a whole layer from one component or token."""
        if target == OUTPUT:
            column = widened(self._to_residual(source)[:, index])
            raw = _product(column, self.content.w_unembed, column.dtype)
        else:
            raw = widened(self._block(source, target, measure.metric)[:, index])
        return self.normalisation.apply(raw, source, target, sources=index) if measure.normalized else raw

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
            block = widened(self._to_residual(source)[:, sources])
            raw = self.content.w_unembed[:, targets].to(block.dtype).T @ block
        else:
            raw = widened(self._block(source, target, measure.metric)[targets, sources])
        return self.normalisation.apply(raw, source, target, sources, targets) if measure.normalized else raw

    def _block(self, source: str, target: str, metric: AttrMetric) -> Float[Tensor, "_target _source"]:
        regular, embed = self._by_metric(metric)
        return embed[target] if source == EMBED else regular[target][source]

    def _to_residual(self, source: str) -> Float[Tensor, "d_model _source"]:
        return self.content.embed_unembed_attr if source == EMBED else self.content.unembed_attr[source]

    def _by_metric(self, metric: AttrMetric) -> tuple:
        content = self.content
        content.check_harvested(metric)
        if metric == "attr":
            return content.regular_attr, content.embed_attr
        return content.regular_attr_abs, content.embed_attr_abs


def _product(
    vector: Float[Tensor, " d_model"], matrix: Float[Tensor, "d_model n"], dtype: torch.dtype
) -> Float[Tensor, " n"]:
    """Their product; the matrix may be a mapped file of another precision, and is converted piece by piece."""
    step = max(_PIECE // max(len(matrix), 1), 1)
    return torch.cat([vector.to(dtype) @ piece.to(dtype) for piece in matrix.split(step, 1)])
