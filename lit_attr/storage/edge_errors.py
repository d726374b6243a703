"""How sure edges are: standard errors in the unit of the values that are shown, and the groups behind them."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.storage.blocks import Blocks
from lit_attr.storage.standard_errors import StandardErrors, kind_of
from lit_attr.topology.address import OUTPUT
from lit_attr.topology.choice import Measure
from lit_attr.topology.squares import N_BLOCKS
from lit_attr.topology.words import AttrMetric

# Below so many groups nothing is said of a spread: intervals do not hold what they should.
FEW = 4
# How many groups are so few that the whole variation of a source's occurrence is added to a normalised value, see
# `EdgeErrors`; with more of them its share falls as the square. Both were chosen by coverage, see docs/numerics.md.
_WHOLE = 2.0
# Numbers that a product widens at once: 8 MB in float64.
_PIECE = 1 << 20
# The square of what rounding makes of a product, whose factors are sums in single precision, a few roundings off: it is
# relative to the lengths of the factors.
_ROUNDING_SQ = (8 * torch.finfo(torch.float32).eps) ** 2
_ALL = slice(None)


class EdgeErrors:
    """Standard errors by pair of layers; components and token ids are named by their places, as in `Blocks`.

    What is stored is the standard error given how often the source occurs. Raw sums move with the occurrences, too: to
    the variance of a raw sum X is added X^2 times the relative variance of the source's weight. Normalised values do
    not, but where a source occurs in few groups, n of them, their spread is not all that there is: of the same term
    (2 / n)^2 is added. Edges into output tokens, whose groups are blocks of the data, need none of it when normalised.

    Those of edges into output tokens are products, which are made in float64 and rounded as the stored ones are: they
    are the same however many are asked for at once. A source that always stands in one context, such as the first
    token, has no spread between groups, and yet no two harvests agree on its last digits. Stored errors are never below
    their rounding. To those of products their rounding is added.

    Args:
        blocks: The values.
        errors: What the result has stored.
    """

    def __init__(self, blocks: Blocks, errors: StandardErrors) -> None:
        self._blocks = blocks
        self._content = blocks.content
        self._errors = errors

    @classmethod
    def of(cls, blocks: Blocks) -> "EdgeErrors | None":
        """The standard errors of a result; None if it has none.

        Args:
            blocks: The values.
        """
        errors = blocks.content.standard_errors
        return None if errors is None else cls(blocks, errors)

    def n_groups(
        self, source: str, target: str, metric: AttrMetric, sources: slice | Int[Tensor, " _source"] = _ALL
    ) -> Float[Tensor, " _source"]:
        """The effective number of groups, or blocks, in which the sources of a layer occurred.

        Args:
            source: Layer that feeds the target.
            target: Layer that is fed.
            metric: `attr` or `attr_abs`.
            sources: Places of the sources.
        """
        stored = self._content.stored_sources(source)
        numbers = self.n_groups_of_all(source, target, metric)
        return (numbers if stored.ids is None else numbers[stored.ids])[sources]

    def n_groups_of_all(self, source: str, target: str, metric: AttrMetric) -> Float[Tensor, " component"]:
        """Effective numbers of groups of all components of a layer, or token ids, whether they have a place or not."""
        return self._errors.n_groups[kind_of(target, metric)][source]

    def tile(
        self, source: str, target: str, measure: Measure, sources: slice = _ALL, targets: slice = _ALL
    ) -> Float[Tensor, "_target _source"]:
        """Standard errors of a part of one pair of layers; not a number where there are too few groups.

        Args:
            source: Layer that feeds the target.
            target: Layer that is fed.
            measure: Which numbers.
            sources: Places of the source's components, or token ids.
            targets: Places of the target's components, or token ids.
        """
        if target == OUTPUT:
            stored = self._into_output(source, sources, targets)
        else:
            stored = self._blocks.errors(source, target, measure.metric, targets, sources).float()
        n_groups = self.n_groups(source, target, measure.metric, sources)
        if measure.normalized:
            stored = self._blocks.normalisation.apply(stored, source, target, sources, targets)
        return self._shown(
            stored, partial(self._blocks.tile, source, target, measure, sources, targets), n_groups, target, measure
        )

    def of_edges(
        self,
        source: str,
        target: str,
        measure: Measure,
        sources: Int[Tensor, " edge"],
        targets: Int[Tensor, " edge"],
        values: Float[Tensor, " edge"],
        stored: Float[Tensor, " edge"] | None = None,
    ) -> Float[Tensor, " edge"]:
        """Standard errors of single edges; not a number where there are too few groups.

        Args:
            source: Layer that feeds the target.
            target: Layer that is fed.
            measure: Which numbers.
            sources: Place of the source of each edge.
            targets: Place of its target.
            values: Its attribution, in this measure.
            stored: What `stored` gives, where it is known already.
        """
        if stored is None:
            stored = self.stored(source, target, measure.metric, sources, targets)
        n_groups = self.n_groups(source, target, measure.metric, sources)
        if measure.normalized:
            stored = self._blocks.normalisation.apply(stored, source, target, sources, targets)
        return self._shown(stored, lambda: values, n_groups, target, measure)

    def stored(
        self,
        source: str,
        target: str,
        metric: AttrMetric,
        sources: Int[Tensor, " edge"],
        targets: Int[Tensor, " edge"],
    ) -> Float[Tensor, " edge"]:
        """Standard errors of the raw sums of single edges, given how often their sources occur: bfloat16 holds them.

        Args:
            source: Layer that feeds the target.
            target: Layer that is fed.
            metric: `attr` or `attr_abs`.
            sources: Place of the source of each edge.
            targets: Place of its target.
        """
        w_unembed, found = self._content.w_unembed, [torch.empty(0)]
        step = max(_PIECE // (N_BLOCKS * len(w_unembed)), 1)
        for some, others in zip(sources.split(step), targets.split(step), strict=True):
            if target != OUTPUT:
                found.append(self._blocks.errors(source, target, metric, others, some).float())
                continue
            vectors = self._blocks.error_vectors(source, some).double().view(len(some), N_BLOCKS, len(w_unembed))
            columns = w_unembed[:, others].double().T
            squares = (vectors @ columns[:, :, None]).square().sum((1, 2))
            rounding = columns.square().sum(1) * self._blocks.residual_squares(source, some) * _ROUNDING_SQ
            found.append(_rounded(squares + rounding))
        return torch.cat(found)

    def _into_output(self, source: str, sources: slice, targets: slice) -> Float[Tensor, "_target _source"]:
        """Lengths of the products of unembedding columns with the vectors of sources, piece by piece."""
        w_unembed = self._content.w_unembed[:, targets]
        d_model, n_targets = w_unembed.shape
        n_sources = len(self._content.stored_sources(source))
        first, last, _ = sources.indices(n_sources)
        lengths = torch.empty(n_targets, max(last - first, 0))
        for some in _pieces(last - first, max(_PIECE // (N_BLOCKS * d_model), 1)):
            places = slice(first + some.start, first + some.stop)
            vectors = self._blocks.error_vectors(source, places).double()
            residual = self._blocks.residual_squares(source, places) * _ROUNDING_SQ
            for others in _pieces(n_targets, max(_PIECE // d_model, 1)):
                columns = w_unembed[:, others].double().T
                squares = torch.outer(columns.square().sum(1), residual)
                for block in vectors.split(d_model, 1):
                    squares = squares + (columns @ block.T).square()
                lengths[others, some] = _rounded(squares)
        return lengths

    def _shown(
        self,
        errors: Float[Tensor, "*axes"],
        values: Callable[[], Float[Tensor, "*axes"]],
        n_groups: Float[Tensor, " _source"],
        target: str,
        measure: Measure,
    ) -> Float[Tensor, "*axes"]:
        """What is said of values, from standard errors in their unit."""
        n_all = self._errors.n_all_groups[kind_of(target, measure.metric)]
        if not (measure.normalized and target == OUTPUT):
            relative = ((n_all / n_groups.double() - 1) / max(n_all - 1, 1)).clamp(min=0)
            if measure.normalized:
                relative = relative * (_WHOLE / n_groups.double()).clamp(max=1).square()
            errors = (errors.double().square() + values().double().square() * relative).sqrt().float()
        return torch.where(n_groups < FEW, torch.nan, errors)


def _rounded(squares: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Roots, rounded as stored standard errors are."""
    return squares.sqrt().bfloat16().float()


def _pieces(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))
