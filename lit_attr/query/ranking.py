"""The strongest neighbours of a key, and single edges, from lists of the strongest edges where they know them.

The answers are the same without an index. Where a result holds its strongest edges alone, they are the same as far as
they go, and what they lack is said.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lit_attr.errors import NotHeldError
from lit_attr.query.found import Found, strongest_of
from lit_attr.query.index import Index
from lit_attr.query.index_lists import KeyLists, all_lists, kind_of, section_name
from lit_attr.query.strongest_lists import HeldEdge, StrongestLists
from lit_attr.query.sure_ranking import surest_neighbours
from lit_attr.storage.key_edges import KeyEdges
from lit_attr.storage.normalisation import divided
from lit_attr.storage.top_k import DatasetAttributionEntry, strongest
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import Measure, Selection
from lit_attr.topology.words import AttrMetric, Direction


class Ranker:
    """Ranks the edges of a result.

    Args:
        key_edges: Edges of the result's keys.
        index: The result's index, where there is one, or the lists of a result that holds nothing else.
    """

    def __init__(self, key_edges: KeyEdges, index: Index | None) -> None:
        self._key_edges = key_edges
        self._blocks = key_edges.blocks
        self._index = index
        self._lists = {lists.name: lists for lists in all_lists(key_edges.blocks)} if index else {}

    def neighbours(
        self, direction: Direction, key: ComponentKey, measure: Measure, selection: Selection
    ) -> Found[DatasetAttributionEntry]:
        """The strongest sources or targets of a key, best first.

        Args:
            direction: Whether sources or targets are ranked.
            key: A key that has some.
            measure: Which number of an edge decides.
            selection: How many, of which sign, in which layers.

        Raises:
            ConfigurationError: If the selection needs standard errors, and the result has none.
            NotHeldError: If it needs them, and the result holds its strongest edges alone.
            StorageError: If values are not finite, or the result is damaged.
        """
        if selection.needs_errors:
            return Found(surest_neighbours(self._key_edges, direction, key, measure, selection))
        find = self._blocks.source_layers if direction == "sources" else self._blocks.target_layers
        by_kind: dict[str, list[str]] = {}
        for layer in find(key.layer, measure.metric):
            if selection.admits(layer):
                by_kind.setdefault(kind_of(layer), []).append(layer)

        def found() -> Iterable[Found[DatasetAttributionEntry]]:
            for sign in selection.signs:
                for kind, layers in by_kind.items():
                    lists = self._lists.get(section_name(direction, key.layer, kind))
                    known = self._indexed(lists, key, measure, Selection(selection.k, sign, layers))
                    if known is None:
                        ask = self._key_edges.sources if direction == "sources" else self._key_edges.targets
                        known = Found(strongest(ask(key, measure, layers), selection.k, sign))
                    yield known

        return strongest_of(found(), selection.k, lambda entry: entry.value)

    def edge(self, source: ComponentKey, target: ComponentKey, measure: Measure) -> float | None:
        """The attribution of one edge; None if its target was no target of the harvest, so that it was not measured.

        Raises:
            EdgeNotFoundError: If there is no such edge.
            NotHeldError: If there is one, and the result does not hold it.
            StorageError: If its value is not finite, or the result is damaged.
        """
        if not isinstance(self._index, StrongestLists):
            return self._key_edges.edge(source, target, measure)
        if not self._key_edges.was_measured(source, target, measure.metric):
            return None
        raw = np.array([self._held(self._index, source, target, measure.metric).raw], np.float32)
        return float((self._normalized(raw, "sources", target, [source]) if measure.normalized else raw)[0])

    @property
    def stored_errors(self) -> Callable[[ComponentKey, ComponentKey, AttrMetric], float] | None:
        """Gives the stored standard error of an edge, where the result holds its strongest edges alone; else None.

        It raises a NotHeldError if the result does not hold the edge, and a StorageError if the result is damaged.
        """
        index = self._index
        if not isinstance(index, StrongestLists):
            return None
        return lambda source, target, metric: self._held(index, source, target, metric).error

    def _held(self, index: StrongestLists, source: ComponentKey, target: ComponentKey, metric: AttrMetric) -> HeldEdge:
        """What lists of the strongest edges have of one edge."""
        ways: tuple[tuple[Direction, ComponentKey, ComponentKey], ...]
        ways = (("sources", target, source), ("targets", source, target))
        for direction, key, other in ways:
            lists = self._lists[section_name(direction, key.layer, kind_of(other.layer))]
            held = index.edge(lists, key.index, other, metric)
            if held is not None:
                return held
        raise NotHeldError(
            f"the edge from {source} to {target} is not held: this result keeps the {index.k} strongest of each "
            "list, and it is neither among those of its source nor among those of its target"
        )

    def _indexed(
        self, lists: KeyLists | None, key: ComponentKey, measure: Measure, selection: Selection
    ) -> Found[DatasetAttributionEntry] | None:
        """What the index knows of one sign, if that is enough, or all that there is."""
        if lists is None or self._index is None:
            return None
        place = lists.edges.keys.place(key.index)
        if place is None:  # all its edges are zero
            return Found()
        known = self._index.neighbours(lists, place, measure, *selection.signs)
        if known is None:
            return None
        neighbours = lists.edges.neighbours
        numbers, indices = neighbours.locate(known.positions)
        admitted = np.array([selection.admits(layer) for layer in neighbours.layers])
        wanted = np.flatnonzero(admitted[numbers])[: selection.k]
        lacks_some = len(wanted) < selection.k and not known.complete
        if lacks_some and known.not_held is None:
            return None
        shown = np.append(wanted, len(known.raw) - 1) if lacks_some else wanted
        layers = [neighbours.layers[number] for number in numbers[shown].tolist()]
        keys = [ComponentKey(*place) for place in zip(layers, indices[shown].tolist(), strict=True)]
        values = known.raw[shown]
        if measure.normalized:
            values = self._normalized(values, lists.edges.direction, key, keys)
        entries = [
            DatasetAttributionEntry(str(neighbour), neighbour.layer, neighbour.index, value)
            for neighbour, value in zip(keys, values.tolist(), strict=True)
        ]
        # The last entry of the list, whatever its layer, is as large as any that was dropped.
        return Found(entries[:-1], abs(entries[-1].value), known.not_held) if lacks_some else Found(entries)

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
