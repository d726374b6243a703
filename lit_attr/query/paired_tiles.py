"""The walk over the edges of two results at once, tile by tile, in memory that does not grow with them.

Each result has places of its own for components and token ids: what is met are edges that both have measured, by the
indices of their ends. These are from sources that occur in the data of both, into targets of both harvests.

A result's own normalised values are divided by the root mean square of their targets in its own data. That is not known
exactly, while standard errors take it as known: values would differ by the difference of these alone. So the values of
both are divided by one, that of the data of both together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from lit_attr.query.explorer import Explorer
from lit_attr.query.tiles import parts
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.edge_errors import EdgeErrors
from lit_attr.storage.harvested_targets import HarvestedTargets
from lit_attr.storage.top_k import check_finite
from lit_attr.topology.address import EMBED
from lit_attr.topology.choice import Measure
from lit_attr.topology.live import LiveSet
from lit_attr.topology.words import AttrMetric

# Components, or token ids, along each side of a tile; several numbers of each edge are there at once.
_SIDE = 512


@dataclass(frozen=True)
class PairedTile:
    """Some edges between two layers, in two results.

    Attributes:
        pair: Source and target layer.
        sources: Components, or token ids.
        targets: Components, or token ids.
        values: Normalised attributions in each result, in units of one root mean square of each target.
        errors: Their standard errors; not a number where there are too few groups. None where
            they are not asked for.
        n_groups: The effective numbers of groups in which the sources occurred.
    """

    pair: tuple[str, str]
    sources: Int[Tensor, " source"]
    targets: Int[Tensor, " target"]
    values: tuple[Float64[Tensor, "target source"], Float64[Tensor, "target source"]]
    errors: tuple[Float64[Tensor, "target source"], Float64[Tensor, "target source"]] | None
    n_groups: tuple[Float64[Tensor, " source"], Float64[Tensor, " source"]] | None


class _Side:
    """One of the two results."""

    def __init__(self, explorer: Explorer) -> None:
        self.content = explorer.storage
        self.blocks = Blocks(self.content)
        self.errors = EdgeErrors.of(self.blocks)
        self.harvested = HarvestedTargets(self.content)
        self.sources, self.targets = cache(self._sources), cache(self._targets)

    def _sources(self, layer: str) -> Bool[Tensor, " component"]:
        """Which components, or token ids, occur in the data."""
        return (self.content.embed_token_count if layer == EMBED else self.content.ci_sum[layer]) > 0

    def _targets(self, layer: str) -> Bool[Tensor, " component"]:
        """Which components, or token ids, were targets of the harvest."""
        were = torch.ones(self.content.layer_size(layer), dtype=torch.bool)
        were[self.harvested.missing(layer)] = False
        return were


class PairedResults:
    """Two results whose components correspond.

    Args:
        one: A result.
        other: Another one.
        metric: `attr` or `attr_abs`.
    """

    def __init__(self, one: Explorer, other: Explorer, metric: AttrMetric) -> None:
        self._sides = _Side(one), _Side(other)
        self._measure = Measure(metric)

    def n_edges(self, pair: tuple[str, str]) -> tuple[int, int, int]:
        """How many edges between two layers both results have measured, the first alone, and the second alone."""
        one, other = ((side.sources(pair[0]), side.targets(pair[1])) for side in self._sides)
        both = one[0] & other[0], one[1] & other[1]
        n_one, n_other, n_both = (int(ends[0].sum()) * int(ends[1].sum()) for ends in (one, other, both))
        return n_both, n_one - n_both, n_other - n_both

    def tiles(self, pairs: Sequence[tuple[str, str]], *, with_errors: bool) -> Iterator[PairedTile]:
        """Walk over the edges between some layers.

        Args:
            pairs: Source and target layers.
            with_errors: Whether standard errors are read, which both results then have.

        Raises:
            StorageError: If a value is not finite.
        """
        one, other = self._sides
        for pair in pairs:
            both = one.sources(pair[0]) & other.sources(pair[0]), one.targets(pair[1]) & other.targets(pair[1])
            for targets in _pieces(both[1]):
                for sources in _pieces(both[0]):
                    yield self._tile(pair, sources, targets, with_errors=with_errors)

    def _mean_squares(self, layer: str) -> Float64[Tensor, " target"]:
        """The mean square of each target over the data of both results."""
        n_tokens = [max(side.content.n_tokens_processed, 1) for side in self._sides]
        own = [side.blocks.normalisation.of_targets(layer).double().square() for side in self._sides]
        return (own[0] * n_tokens[0] + own[1] * n_tokens[1]) / sum(n_tokens)

    def _tile(
        self,
        pair: tuple[str, str],
        sources: Int[Tensor, " source"],
        targets: Int[Tensor, " target"],
        *,
        with_errors: bool,
    ) -> PairedTile:
        unit = self._mean_squares(pair[1])[targets].sqrt()
        values, errors, n_groups = list[Tensor](), list[Tensor](), list[Tensor]()
        for side in self._sides:
            (columns, some_sources), (rows, some_targets) = (
                _places(members, ids)
                for members, ids in (
                    (side.content.stored_sources(pair[0]), sources),
                    (side.content.stored_targets(pair[1]), targets),
                )
            )

            scale = (side.blocks.normalisation.of_targets(pair[1])[targets].double() / unit)[:, None]
            chosen = partial(_chosen, rows=some_targets, columns=some_sources, scale=scale)

            asked = (*pair, self._measure, columns, rows)
            values.append(chosen(side.blocks.tile(*asked)))
            check_finite(values[-1], f"{pair[0]} to {pair[1]}")
            if with_errors and side.errors is not None:
                errors.append(chosen(side.errors.tile(*asked)))
                groups = side.errors.n_groups(*pair, self._measure.metric, columns)
                n_groups.append(groups[some_sources].double())
        found = (tuple(errors), tuple(n_groups)) if with_errors else (None, None)
        return PairedTile(pair, sources, targets, tuple(values), *found)  # type: ignore[arg-type]


def _chosen(
    tile: Float[Tensor, "_target _source"],
    rows: Int[Tensor, " target"],
    columns: Int[Tensor, " source"],
    scale: Float64[Tensor, "target 1"],
) -> Float64[Tensor, "target source"]:
    return tile[rows][:, columns].double() * scale


def _pieces(mask: Bool[Tensor, " component"]) -> Iterator[Int[Tensor, " some"]]:
    """The indices of a mask, piece by piece, of so many that follow each other; pieces with none are left out."""
    for part in parts(len(mask), _SIDE):
        if len(found := mask[part].nonzero()[:, 0]):
            yield found + part.start


def _places(members: LiveSet, ids: Int[Tensor, " some"]) -> tuple[slice, Int[Tensor, " some"]]:
    """The places from the first to the last of some members, and where in these each of them is."""
    places = ids if members.ids is None else torch.searchsorted(members.ids, ids)
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1), places - first
