"""The strongest neighbours of a key, from an index where it knows them; the answers are the same without it."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lit_attr.query.index import Index
from lit_attr.query.index_lists import KeyLists, all_key_lists, kind_of, section_name
from lit_attr.storage.key_edges import KeyEdges
from lit_attr.storage.normalisation import divided
from lit_attr.storage.top_k import DatasetAttributionEntry, strongest
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import Measure, Selection
from lit_attr.topology.words import Direction, Sign


class Ranker:
    """Ranks the edges of a result.

    Args:
        key_edges: Edges of the result's keys.
        index: The result's index, where there is one.
    """

    def __init__(self, key_edges: KeyEdges, index: Index | None) -> None:
        self._key_edges = key_edges
        self._blocks = key_edges.blocks
        self._index = index
        self._lists = {lists.name: lists for lists in all_key_lists(key_edges.blocks)} if index else {}

    def neighbours(
        self, direction: Direction, key: ComponentKey, measure: Measure, selection: Selection
    ) -> list[DatasetAttributionEntry]:
        """The strongest sources or targets of a key, best first.

        Args:
            direction: Whether sources or targets are ranked.
            key: A key that has some.
            measure: Which number of an edge decides.
            selection: How many, of which sign, in which layers.

        Raises:
            StorageError: If values are not finite.
        """
        find = self._blocks.source_layers if direction == "sources" else self._blocks.target_layers
        by_kind: dict[str, list[str]] = {}
        for layer in find(key.layer, measure.metric):
            if selection.admits(layer):
                by_kind.setdefault(kind_of(layer), []).append(layer)

        def of_sign(sign: Sign) -> list[DatasetAttributionEntry]:
            entries: list[DatasetAttributionEntry] = []
            for kind, layers in by_kind.items():
                lists = self._lists.get(section_name(direction, key.layer, kind))
                known = self._indexed(lists, key, measure, sign, Selection(selection.k, sign, layers))
                if known is None:
                    ask = self._key_edges.sources if direction == "sources" else self._key_edges.targets
                    known = strongest(ask(key, measure, layers), selection.k, sign)
                entries += known
            return entries

        return rank(of_sign, selection, lambda entry: entry.value)

    def _indexed(
        self, lists: KeyLists | None, key: ComponentKey, measure: Measure, sign: Sign, selection: Selection
    ) -> list[DatasetAttributionEntry] | None:
        """What the index knows, if that is enough."""
        if lists is None or self._index is None:
            return None
        place = lists.edges.keys.place(key.index)
        if place is None:  # all its edges are zero
            return []
        known = self._index.neighbours(lists, place, measure, sign)
        if known is None:
            return None
        neighbours = lists.edges.neighbours
        numbers, indices = neighbours.locate(known.positions)
        admitted = np.array([selection.admits(layer) for layer in neighbours.layers])
        wanted = np.flatnonzero(admitted[numbers])[: selection.k]
        if len(wanted) < selection.k and not known.complete:
            return None
        layers = [neighbours.layers[number] for number in numbers[wanted].tolist()]
        keys = [ComponentKey(*place) for place in zip(layers, indices[wanted].tolist(), strict=True)]
        values = known.raw[wanted]
        if measure.normalized:
            values = self._normalized(values, lists.edges.direction, key, keys)
        return [
            DatasetAttributionEntry(str(neighbour), neighbour.layer, neighbour.index, value)
            for neighbour, value in zip(keys, values.tolist(), strict=True)
        ]

    def _normalized(
        self, raw: Float[np.ndarray, " key"], direction: Direction, key: ComponentKey, others: Sequence[ComponentKey]
    ) -> Float[np.ndarray, " key"]:
        """The edges between a key and others, which are its sources or targets, normalised."""

        def scales(of_layer: Callable[[str], Tensor], keys: Sequence[ComponentKey]) -> Float[np.ndarray, " key"]:
            by_layer = {layer: of_layer(layer).numpy() for layer in {key.layer for key in keys}}
            return np.array([by_layer[key.layer][key.index] for key in keys], dtype=np.float32)

        sources, targets = ([key], others) if direction == "targets" else (others, [key])
        normalisation = self._blocks.normalisation
        return divided(raw, scales(normalisation.of_sources, sources), scales(normalisation.of_targets, targets))


Ranked = TypeVar("Ranked")


def rank(
    find: Callable[[Sign], Iterable[Ranked]], selection: Selection, value: Callable[[Ranked], float]
) -> list[Ranked]:
    """The strongest of what is found of one sign, or of both by magnitude; best first.

    Args:
        find: At least the `k` strongest of a sign.
        selection: How many, of which sign.
        value: The number by which one is ranked.
    """
    candidates = [one for sign in selection.signs for one in find(sign)]
    return sorted(candidates, key=lambda one: -abs(value(one)))[: selection.k]
