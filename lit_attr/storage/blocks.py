"""The blocks of a result, one for each pair of layers: rows are targets that have a place, columns sources.

Which components have one, `Content.stored_sources` and `Content.stored_targets` say; in the dense form, all.
An attribution to an output token is the product of its unembedding column with the attributions to the residual stream,
which is exact. These products are summed in float64 and then rounded: float32 would make their last bits depend on how
many of them are computed at once, which differs from question to question, and with the form of the result.
"""

import torch
from jaxtyping import BFloat16, Float, Float64, Int
from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.storage.file_content import Content
from lit_attr.storage.normalisation import Normalisation, Places, widened
from lit_attr.storage.standard_errors import WHY_NO_ERRORS, StandardErrors
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import AttrMetric

# Numbers of a matrix that a product widens at once: 8 MB in float64.
_PIECE = 1 << 20
_ALL = slice(None)


class Blocks:
    """Attributions by pair of layers; components and token ids are named by their places.

    Whatever is asked for a metric raises a `ConfigurationError` if it was not harvested, and whatever is asked for
    attributions a `NotHeldError` if the content has only the shapes of their sums.

    Args:
        content: What was harvested.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.normalisation = Normalisation(content)

    def n_stored(self, source: str, target: str) -> int:
        """Number of stored edges between two layers: all others are zero, or were not measured."""
        return len(self.content.stored_sources(source)) * len(self.content.stored_targets(target))

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

    def row(self, source: str, target: str, measure: Measure, place: int) -> Float[Tensor, " _source"]:
        """Attributions from a whole layer to one component or output token, which is given by its place."""
        if target == OUTPUT:
            raw = _product(self.content.w_unembed[:, place], self._to_residual(source, _ALL))
        else:
            raw = widened(self._part(source, target, measure.metric, place, _ALL))
        return self.normalisation.apply(raw, source, target, targets=place) if measure.normalized else raw

    def column(self, source: str, target: str, measure: Measure, place: int) -> Float[Tensor, " _target"]:
        """Attributions to a whole layer from one component or token, which is given by its place."""
        if target == OUTPUT:
            raw = _product(self._to_residual(source, place), self.content.w_unembed)
        else:
            raw = widened(self._part(source, target, measure.metric, _ALL, place))
        return self.normalisation.apply(raw, source, target, sources=place) if measure.normalized else raw

    def tile(
        self, source: str, target: str, measure: Measure, sources: slice = _ALL, targets: slice = _ALL
    ) -> Float[Tensor, "_target _source"]:
        """Attributions of a part of one pair of layers; products where the target is the output.

        Args:
            source: Layer that feeds the target.
            target: Layer that is fed.
            measure: Which numbers; raw ones may be the file's own bytes, which must not be written to.
            sources: Places of the source's components, or token ids.
            targets: Places of the target's components, or token ids.
        """
        if target == OUTPUT:
            block = self._to_residual(source, sources)
            raw = (self.content.w_unembed[:, targets].double().T @ block.double()).to(_wide(block))
        else:
            raw = widened(self._part(source, target, measure.metric, targets, sources))
        return self.normalisation.apply(raw, source, target, sources, targets) if measure.normalized else raw

    def errors(
        self, source: str, target: str, metric: AttrMetric, targets: Places, sources: Places
    ) -> BFloat16[Tensor, "..."]:
        """Stored standard errors of edges into a layer of components: of a part, or of single edges.

        Args:
            source: Layer that feeds the target.
            target: Layer that is fed.
            metric: `attr` or `attr_abs`.
            targets: Places of the target's components; of single edges, a place for each.
            sources: Places of the source's components, or token ids; likewise.
        """
        return self._errors.edges(source, target, metric)[targets, sources]

    def error_vectors(self, source: str, sources: Places) -> BFloat16[Tensor, "source block_x_d_model"]:
        """What standard errors of edges from some sources into output tokens come from, see `StandardErrors`."""
        return self._errors.edges(source, OUTPUT, "attr")[sources]

    def residual_squares(self, source: str, sources: slice | Int[Tensor, " source"]) -> Float64[Tensor, " source"]:
        """The squared lengths of what some sources have summed at the input of the unembedding.

        Args:
            source: Layer that feeds the output.
            sources: Places of the source's components, or token ids.
        """
        return self._to_residual(source, sources).double().square().sum(0)

    @property
    def _errors(self) -> StandardErrors:
        self.content.check_holds_edges()
        if self.content.standard_errors is None:
            raise ConfigurationError(WHY_NO_ERRORS)
        return self.content.standard_errors

    def _part(
        self, source: str, target: str, metric: AttrMetric, targets: Places, sources: Places
    ) -> Float[Tensor, "..."]:
        """Sums of some edges into a layer of components; without the axes of which one place is meant."""
        self.content.check_holds_edges()
        regular, embed = self._by_metric(metric)
        block: Tensor = embed[target] if source == EMBED else regular[target][source]
        return block[targets, sources]

    def _to_residual(self, source: str, sources: Places) -> Float[Tensor, "..."]:
        """Sums by residual dimension of some sources; without the axis of which one place is meant."""
        self.content.check_holds_edges()
        block = self.content.embed_unembed_attr if source == EMBED else self.content.unembed_attr[source]
        return block[:, sources]

    def _by_metric(self, metric: AttrMetric) -> tuple:
        content = self.content
        content.check_harvested(metric)
        if metric == "attr":
            return content.regular_attr, content.embed_attr
        return content.regular_attr_abs, content.embed_attr_abs


def _product(vector: Float[Tensor, " d_model"], matrix: Float[Tensor, "d_model n"]) -> Float[Tensor, " n"]:
    """Their product; the matrix may be a mapped file, and is widened some rows at a time."""
    total = torch.zeros(matrix.shape[1], dtype=torch.float64)
    step = max(_PIECE // max(matrix.shape[1], 1), 1)
    for numbers, rows in zip(vector.double().split(step), matrix.split(step), strict=True):
        total.addmv_(rows.double().T, numbers)
    return total.to(_wide(matrix))


def _wide(tensor: Tensor) -> torch.dtype:
    """The precision of answers: single, or that of the sums where it is higher."""
    return torch.promote_types(tensor.dtype, torch.float32)
