"""How far a harvest is settled: whether more data would still change which sources of its targets are the strongest."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.query.tiles import LayerEdges, parts, tiles
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.edge_errors import EdgeErrors
from lit_attr.storage.interval import half_width
from lit_attr.storage.standard_errors import WHY_NO_ERRORS
from lit_attr.topology.choice import Measure

_MEASURE = Measure("attr", normalized=True)
# Targets and sources of a tile: values, errors and ends of intervals have 4 MB each, those in float64 twice as much.
_N_TARGETS, _N_SOURCES = 256, 4096


@dataclass(frozen=True)
class Settled:
    """How far the strongest sources of components are settled.

    Attributes:
        n_targets: Components that are targets of the harvest, and have a source: of the others nothing is known yet.
        n_separated: How many of them have strongest sources whose intervals lie beyond those of all other sources.
        relative_error: The median of standard error over magnitude, over the strongest sources of all targets; None
            where no source has a standard error.
    """

    n_targets: int
    n_separated: int
    relative_error: float | None


def settled(blocks: Blocks, k: int, level: float) -> Settled:
    """Look at every edge into a component, in bounded memory, by normalised `attr`.

    Sources that occur in too few groups of batches for an interval are left aside: there will always be some.

    Args:
        blocks: Blocks of the result, or of sums that are not written.
        k: How many of the strongest sources of a target.
        level: The share of intervals that hold what they are of, above 0 and below 1.

    Raises:
        ConfigurationError: If there are no standard errors.
        StorageError: If a value is not finite.
    """
    errors = EdgeErrors.of(blocks)
    if errors is None:
        raise ConfigurationError(WHY_NO_ERRORS)
    n_targets = n_separated = 0
    relative = [torch.empty(0)]
    for target in (layer for layer in blocks.content.ci_sum if blocks.source_layers(layer, "attr")):
        edges = LayerEdges.between(blocks, "sources", target, blocks.source_layers(target, "attr"))
        for rows in parts(len(edges.keys), _N_TARGETS):
            strongest = _Strongest(rows.stop - rows.start, k)
            for tile in tiles(blocks, edges, "attr", rows, _N_SOURCES, of_one_layer=True):
                pair, sources = edges.pair(tile.pieces[0].layer), tile.pieces[0].part
                of_tile = errors.tile(*pair, _MEASURE, sources, rows)
                width = half_width(of_tile, errors.n_groups(*pair, "attr", sources), level)
                strongest.add(tile.normalized, of_tile, width)
            n_targets += int(strongest.has_any().sum())
            n_separated += int(strongest.separated().sum())
            relative.append(strongest.relative_errors())
    every = torch.cat(relative)
    return Settled(n_targets, n_separated, float(every.median()) if len(every) else None)


class _Strongest:
    """The strongest sources of some targets, of rows that are seen piece by piece, and the highest end of all others.

    Args:
        n_rows: How many targets.
        k: How many sources of each.
    """

    def __init__(self, n_rows: int, k: int) -> None:
        self._k = k
        # What is no source has a magnitude of 0, at the end of every row.
        self.magnitudes = torch.zeros(n_rows, k)
        self._errors = torch.zeros(n_rows, k)
        self._widths = torch.zeros(n_rows, k, dtype=torch.float64)
        self._highest = torch.zeros(n_rows, dtype=torch.float64)
        self._n_known = torch.zeros(n_rows, dtype=torch.int64)
        self._has_unknown = torch.zeros(n_rows, dtype=torch.bool)

    def add(
        self,
        values: Float[Tensor, "row source"],
        errors: Float[Tensor, "row source"],
        widths: Float[Tensor, "row source"],
    ) -> None:
        """See more sources of every target."""
        known = (values != 0) & ~errors.isnan()
        self._n_known += known.sum(1)
        self._has_unknown |= ((values != 0) & ~known).any(1)
        magnitudes = torch.cat([self.magnitudes, values.abs().where(known, 0.0)], 1)
        all_errors = torch.cat([self._errors, errors.where(known, 0.0)], 1)
        all_widths = torch.cat([self._widths, widths.where(known, 0.0)], 1)
        self.magnitudes, places = magnitudes.topk(self._k, 1)
        self._errors, self._widths = all_errors.gather(1, places), all_widths.gather(1, places)
        ends = (magnitudes.double() + all_widths).scatter(1, places, 0.0)
        self._highest = torch.maximum(self._highest, ends.amax(1))

    def has_any(self) -> Bool[Tensor, " row"]:
        """Whether a target has a source at all."""
        return (self._n_known > 0) | self._has_unknown

    def separated(self) -> Bool[Tensor, " row"]:
        """Whether the strongest are told apart from the others; where there are no others, they are."""
        lowest = (self.magnitudes.double() - self._widths).amin(1)
        has_only_strongest = (self._n_known > 0) & ~self._has_unknown
        return torch.where(self._n_known > self._k, lowest > self._highest, has_only_strongest)

    def relative_errors(self) -> Float[Tensor, " edge"]:
        """Standard errors over magnitudes, of the strongest sources of all targets."""
        mask = self.magnitudes > 0
        return self._errors[mask] / self.magnitudes[mask]
