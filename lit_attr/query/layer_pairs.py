"""Pairs of layers: what is known of them, from the index, or from the blocks where the index does not say it."""

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from lit_attr.query.found import Found, strongest_of
from lit_attr.query.index import Index, IndexedList
from lit_attr.query.index_lists import number_in_pair
from lit_attr.query.running_lists import PairSummary
from lit_attr.query.sure_ranking import surest_edges
from lit_attr.query.tiles import LayerEdges, parts, tiles
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.normalisation import divided
from lit_attr.topology.address import EMBED, ComponentKey
from lit_attr.topology.choice import Measure, Selection
from lit_attr.topology.words import AttrMetric, Sign

# Sources and targets of a tile: it has 64 MB.
_SIDE = 4096


class KeyEdge(NamedTuple):
    """An edge between two keys, with the number that ranks it, and its stored standard error where that is known."""

    source: ComponentKey
    target: ComponentKey
    value: float
    score: float
    stored_error: float | None


def layer_pairs(blocks: Blocks, metric: AttrMetric) -> list[tuple[str, str]]:
    """All pairs of source and target layer between which there are edges."""
    sources = [EMBED, *blocks.content.ci_sum]
    return [(source, target) for source in sources for target in blocks.target_layers(source, metric)]


def summarise(blocks: Blocks, pair: tuple[str, str], metric: AttrMetric, k: int) -> PairSummary:
    """Look at all edges between two layers, tile by tile.

    Args:
        blocks: Blocks of the result.
        pair: Source and target layer.
        metric: `attr` or `attr_abs`.
        k: How many of the strongest edges are kept, if there are so many.

    Raises:
        StorageError: If a value is not finite.
    """
    source, target = pair
    edges = LayerEdges.between(blocks, "sources", target, [source])
    n_sources, n_targets = len(edges.neighbours), len(edges.keys)
    summary = PairSummary(n_sources, n_targets, min(k, n_sources * n_targets))
    for targets in parts(n_targets, _SIDE):
        for tile in tiles(blocks, edges, metric, targets, _SIDE):
            summary.add(tile.raw.T, tile.normalized.T, tile.first, targets.start)
            del tile  # before the next one is made
    return summary


class LayerPairs:
    """Answers questions about pairs of layers.

    Args:
        blocks: Blocks of the result.
        index: Index of the result, where there is one.
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
        if known is not None:
            return known
        return summarise(self._blocks, pair, measure.metric, 1).mass(normalized=measure.normalized)

    def edges(self, pair: tuple[str, str], measure: Measure, selection: Selection) -> Found[KeyEdge]:
        """The strongest edges between two layers, best first.

        Args:
            pair: Source and target layer, between which there are edges.
            measure: Which number of an edge decides.
            selection: How many, of which sign.

        Raises:
            ConfigurationError: If the selection needs standard errors, and the result has none.
            NotHeldError: If it needs them, and the result holds its strongest edges alone.
            StorageError: If a value is not finite.
        """
        if selection.needs_errors:
            found = surest_edges(self._blocks, pair, measure, selection)
            scores, raw, positions = (numbers[0].numpy() for numbers in found)
            return Found(self._edges(pair, measure, IndexedList(positions, raw, complete=False), scores))
        # Looked at once for both signs, and not at all where the index knows enough.
        summary = cache(lambda: summarise(self._blocks, pair, measure.metric, selection.k))

        def of_sign(sign: Sign) -> Found[KeyEdge]:
            known = self._strongest(pair, measure, selection.k, sign, summary)
            edges = self._edges(pair, measure, known)
            return Found(edges) if known.not_held is None else Found(edges, abs(edges[-1].value), known.not_held)

        return strongest_of(map(of_sign, selection.signs), selection.k, attrgetter("score"))

    def _edges(
        self,
        pair: tuple[str, str],
        measure: Measure,
        known: IndexedList,
        scores: Float[np.ndarray, " edge"] | None = None,
    ) -> list[KeyEdge]:
        content, positions, values = self._blocks.content, known.positions, known.raw
        errors = [None] * len(values) if known.errors is None else known.errors.tolist()
        members = content.stored_sources(pair[0]), content.stored_targets(pair[1])
        targets, sources = np.divmod(positions, max(len(members[0]), 1))
        sources, targets = (
            one.indices(torch.from_numpy(places)).numpy()
            for one, places in zip(members, (sources, targets), strict=True)
        )
        if measure.normalized:
            scales = self._blocks.normalisation
            by_source, by_target = scales.of_sources(pair[0]), scales.of_targets(pair[1])
            values = divided(values, by_source.numpy()[sources], by_target.numpy()[targets])
        return [
            KeyEdge(ComponentKey(pair[0], source), ComponentKey(pair[1], target), value, score, error)
            for source, target, value, score, error in zip(
                *(
                    sources.tolist(),
                    targets.tolist(),
                    values.tolist(),
                    (values if scores is None else scores).tolist(),
                    errors,
                ),
                strict=True,
            )
        ]

    def _strongest(
        self, pair: tuple[str, str], measure: Measure, k: int, sign: Sign, summary: Callable[[], PairSummary]
    ) -> IndexedList:
        """At most so many edges of the sign."""
        n_edges = self._blocks.n_stored(*pair)
        known = self._index.edges(pair, measure, sign, n_edges) if self._index else None
        if known is not None and (k <= len(known.raw) or known.complete):
            errors = None if known.errors is None else known.errors[:k]
            return IndexedList(known.positions[:k], known.raw[:k], known.complete, errors=errors)
        if known is not None and known.not_held is not None:
            return known
        positions, raw = (part[number_in_pair(measure, sign)].numpy() for part in summary().lists())
        return IndexedList(positions[positions >= 0], raw[positions >= 0], complete=False)
