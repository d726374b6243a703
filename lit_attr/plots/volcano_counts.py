"""How many edges of a result have which value and are how sure: counts by value and by z, tile by tile."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.query.explorer import Explorer
from lit_attr.query.tiles import parts
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.edge_errors import EdgeErrors
from lit_attr.storage.interval import half_width
from lit_attr.storage.standard_errors import WHY_NO_ERRORS
from lit_attr.storage.top_k import check_finite
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import AttrMetric

# Components, or token ids, along each side of a tile.
_SIDE = 256
# Of more edges, tiles that are spread evenly are looked at: those into output tokens take long.
_MOST = 1 << 25
# Cells of a decade, and the powers of ten that they reach from and to; what lies beyond is in the outermost cells.
_PER_DECADE = 10
_MAGNITUDES, _ZS = (-12, 6), (-1, 6)


@dataclass(frozen=True)
class VolcanoCounts:
    """Edges counted by value and z.

    Attributes:
        counts: Numbers of edges by cell of |z|, sign (negative, positive), and cell of magnitude.
        magnitudes: Where the cells of magnitudes begin and end.
        zs: Where those of |z| do.
        n_sure: How many of these edges have an interval without zero.
        n_few: How many more were left out, since their sources occur in too few groups of batches.
        share: Share of all edges that was looked at.
    """

    counts: Int[np.ndarray, "z 2 magnitude"]
    magnitudes: Float[np.ndarray, " _edge"]
    zs: Float[np.ndarray, " _edge"]
    n_sure: int
    n_few: int
    share: float


def volcano_counts(explorer: Explorer, metric: AttrMetric, layers: Sequence[str]) -> VolcanoCounts:
    """Count the edges of a result that are not zero, in normalised values.

    Args:
        explorer: The result.
        metric: `attr` or `attr_abs`.
        layers: Edges take part that have one of these at either end; all if none are given.

    Raises:
        ConfigurationError: If the result has no standard errors, or there are no such edges.
        NotHeldError: If it holds its strongest edges alone.
        StorageError: If a value is not finite.
    """
    blocks = Blocks(explorer.storage)
    explorer.storage.check_holds_edges()
    errors = EdgeErrors.of(blocks)
    if errors is None:
        raise ConfigurationError(f"a volcano plot needs standard errors, and {WHY_NO_ERRORS}")
    wanted = explorer.reader.matching(layers)
    pairs = [pair for pair in explorer.layer_pairs(metric=metric) if wanted is None or wanted & set(pair)]
    if not pairs:
        raise ConfigurationError(f"there are no {metric} edges between the layers that were asked for")
    content, measure = explorer.storage, Measure(metric)
    n_edges = sum(blocks.n_stored(*pair) for pair in pairs)
    step = max(-(-n_edges // _MOST), 1)
    counting, number, n_seen = _Counting(), 0, 0
    for pair in pairs:
        for targets in parts(len(content.stored_targets(pair[1])), _SIDE):
            for sources in parts(len(content.stored_sources(pair[0])), _SIDE):
                number += 1
                if number % step:
                    continue
                values = blocks.tile(*pair, measure, sources, targets)
                check_finite(values, f"{pair[0]} to {pair[1]}")
                groups = errors.n_groups(*pair, metric, sources)
                counting.add(values, errors.tile(*pair, measure, sources, targets), groups)
                n_seen += values.numel()
    return counting.found(n_seen / max(n_edges, 1))


class _Counting:
    def __init__(self) -> None:
        self._edges = [np.logspace(low, high, (high - low) * _PER_DECADE + 1) for low, high in (_MAGNITUDES, _ZS)]
        n_magnitudes, n_zs = (len(edges) - 1 for edges in self._edges)
        self._counts = np.zeros((n_zs, 2, n_magnitudes), dtype=np.int64)
        self._n_sure = self._n_few = 0

    def add(
        self,
        values: Float[Tensor, "_target _source"],
        errors: Float[Tensor, "_target _source"],
        n_groups: Float[Tensor, " _source"],
    ) -> None:
        """Count the edges of a tile."""
        known = (values != 0) & ~errors.isnan()
        self._n_few += int(((values != 0) & errors.isnan()).sum())
        self._n_sure += int((known & (values.double().abs() > half_width(errors, n_groups))).sum())
        some, of_some = values[known].double(), errors[known].double()
        magnitudes, zs = (
            _cells(numbers, edges)
            for numbers, edges in zip((some.abs(), some.abs() / of_some), self._edges, strict=True)
        )
        places = np.ravel_multi_index((zs, (some > 0).numpy().astype(np.int64), magnitudes), self._counts.shape)
        self._counts += np.bincount(places, minlength=self._counts.size).reshape(self._counts.shape)

    def found(self, share: float) -> VolcanoCounts:
        """What was counted."""
        magnitudes, zs = self._edges
        return VolcanoCounts(self._counts, magnitudes, zs, self._n_sure, self._n_few, share)


def _cells(numbers: Float64[Tensor, " edge"], edges: Float[np.ndarray, " _edge"]) -> Int[np.ndarray, " edge"]:
    """The cell of each number; those beyond all cells are in the outermost ones."""
    cells = torch.bucketize(numbers, torch.from_numpy(edges), right=True) - 1
    return cells.clamp(0, len(edges) - 2).numpy()
