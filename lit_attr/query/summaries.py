"""What is known of pairs of layers: from an index, or from the storage where an index does not say it."""

import numpy as np
from jaxtyping import Float, Int

from lit_attr.query.index import Index
from lit_attr.query.lists import place_of
from lit_attr.query.ranking import rank
from lit_attr.query.tops import PairSummary
from lit_attr.storage.blocks import Blocks
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import Measure, Selection
from lit_attr.topology.words import AttrMetric, Sign

# Sources and targets of a tile: it has 64 MB.
_SIDE = 4096


def summarise(blocks: Blocks, pair: tuple[str, str], metric: AttrMetric, k: int) -> PairSummary:
    """Look at all edges between two layers, tile by tile.

    Args:
        blocks: Of the storage.
        pair: Source and target layer.
        metric: `attr` or `attr_abs`.
        k: Strongest edges that are kept.

    Raises:
        StorageError: If a value is not finite.
    """
    n_sources, n_targets = (blocks.size(layer) for layer in pair)
    summary = PairSummary(n_sources, k)
    raw_sums = Measure(metric, normalized=False)
    for first in range(0, n_targets, _SIDE):
        targets = slice(first, first + _SIDE)
        for start in range(0, n_sources, _SIDE):
            sources = slice(start, start + _SIDE)
            raw = blocks.tile(*pair, raw_sums, sources, targets)
            summary.add(raw.T, blocks.normalized(raw, *pair, sources, targets).T, start, first)
    return summary


class Pairs:
    """Asks for pairs of layers.

    Args:
        blocks: Of the storage.
        index: Its index, where there is one.
    """

    def __init__(self, blocks: Blocks, index: Index | None) -> None:
        self._blocks = blocks
        self._index = index

    def mass(self, pair: tuple[str, str], measure: Measure) -> float:
        """Sum of the absolute values of all edges between two layers.

        Args:
            pair: Source and target layer, between which there are edges.
            measure: Which numbers.

        Raises:
            StorageError: If a value is not finite.
        """
        known = self._index.mass(pair, measure) if self._index else None
        return summarise(self._blocks, pair, measure.metric, 1).mass[measure.normalized] if known is None else known

    def edges(
        self, pair: tuple[str, str], measure: Measure, selection: Selection
    ) -> list[tuple[ComponentKey, ComponentKey, float]]:
        """The strongest edges between two layers, best first: source, target, value.

        Args:
            pair: Source and target layer, between which there are edges.
            measure: Which number of an edge decides.
            selection: How many, of which sign.

        Raises:
            StorageError: If a value is not finite.
        """
        return rank(lambda sign: self._of_sign(pair, measure, selection.k, sign), selection, lambda edge: edge[2])

    def _of_sign(
        self, pair: tuple[str, str], measure: Measure, k: int, sign: Sign
    ) -> list[tuple[ComponentKey, ComponentKey, float]]:
        positions, values = self._strongest(pair, measure, k, sign)
        targets, sources = np.divmod(positions, self._blocks.size(pair[0]))
        if measure.normalized:  # as tensors are divided, number for number; of few numbers numpy is faster
            values = values / self._blocks.source_scale(pair[0]).numpy()[sources]
            values = values / self._blocks.target_scale(pair[1]).numpy()[targets]
        return [
            (ComponentKey(pair[0], source), ComponentKey(pair[1], target), value)
            for source, target, value in zip(sources.tolist(), targets.tolist(), values.tolist(), strict=True)
        ]

    def _strongest(
        self, pair: tuple[str, str], measure: Measure, k: int, sign: Sign
    ) -> tuple[Int[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
        known = self._index.edges(pair, measure, sign) if self._index else None
        if known is not None and (k <= len(known[0]) or not known[2]):
            return known[0][:k], known[1][:k]
        n_edges = self._blocks.size(pair[0]) * self._blocks.size(pair[1])
        lists = summarise(self._blocks, pair, measure.metric, min(k, n_edges)).lists()
        positions, raw = (part[place_of("attr", measure.normalized, sign)].numpy() for part in lists)
        return positions[positions >= 0], raw[positions >= 0]
