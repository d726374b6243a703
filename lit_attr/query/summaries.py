"""What is known of pairs of layers: from an index, or from the storage where an index does not say it."""

import numpy as np
import torch
from jaxtyping import Float, Int

from lit_attr.query.index import Index
from lit_attr.query.lists import place_of
from lit_attr.query.ranking import rank
from lit_attr.query.tops import PairSummary
from lit_attr.storage.blocks import Blocks
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.words import AnySign, AttrMetric, Sign

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
    source_scale, target_scale = blocks.source_scale(pair[0]), blocks.target_scale(pair[1])
    for first in range(0, n_targets, _SIDE):
        targets = slice(first, first + _SIDE)
        for start in range(0, n_sources, _SIDE):
            sources = slice(start, start + _SIDE)
            raw = blocks.tile(*pair, metric, sources, targets).T
            normalized = torch.div(raw, source_scale[sources, None]).div_(target_scale[targets])
            summary.add(raw, normalized, start, first)
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

    def mass(self, pair: tuple[str, str], metric: AttrMetric, normalized: bool) -> float:
        """Sum of the absolute values of all edges between two layers.

        Args:
            pair: Source and target layer, between which there are edges.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of source and target.

        Raises:
            StorageError: If a value is not finite.
        """
        known = self._index.mass(*pair, metric, normalized) if self._index else None
        return summarise(self._blocks, pair, metric, 1).mass[normalized] if known is None else known

    def edges(
        self, pair: tuple[str, str], k: int, sign: AnySign, metric: AttrMetric, normalized: bool
    ) -> list[tuple[ComponentKey, ComponentKey, float]]:
        """The strongest edges between two layers, best first: source, target, value.

        Args:
            pair: Source and target layer, between which there are edges.
            k: How many at most.
            sign: `both` ranks by magnitude.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of source and target.

        Raises:
            ConfigurationError: If `k` is not positive, or the sign is unknown.
            StorageError: If a value is not finite.
        """
        return rank(lambda one: self._of_sign(pair, k, one, metric, normalized), k, sign, lambda edge: edge[2])

    def _of_sign(
        self, pair: tuple[str, str], k: int, sign: Sign, metric: AttrMetric, normalized: bool
    ) -> list[tuple[ComponentKey, ComponentKey, float]]:
        positions, values = self._strongest(pair, k, sign, metric, normalized)
        targets, sources = np.divmod(positions, self._blocks.size(pair[0]))
        if normalized:  # as tensors are divided, number for number; of few numbers numpy is faster
            values = values / self._blocks.source_scale(pair[0]).numpy()[sources]
            values = values / self._blocks.target_scale(pair[1]).numpy()[targets]
        return [
            (ComponentKey(pair[0], source), ComponentKey(pair[1], target), value)
            for source, target, value in zip(sources.tolist(), targets.tolist(), values.tolist(), strict=True)
        ]

    def _strongest(
        self, pair: tuple[str, str], k: int, sign: Sign, metric: AttrMetric, normalized: bool
    ) -> tuple[Int[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
        known = self._index.edges(*pair, metric, normalized, sign) if self._index else None
        if known is not None and (k <= len(known[0]) or not known[2]):
            return known[0][:k], known[1][:k]
        n_edges = self._blocks.size(pair[0]) * self._blocks.size(pair[1])
        lists = summarise(self._blocks, pair, metric, min(k, n_edges)).lists()
        positions, raw = (part[place_of("attr", normalized, sign)].numpy() for part in lists)
        return positions[positions >= 0], raw[positions >= 0]
