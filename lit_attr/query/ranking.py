"""The strongest neighbours of a key, from an index where it knows them.

With an index and without, the answers are the same, but for the order of equal values and the last bits of attributions
to output tokens, which are products.
"""

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import torch

from lit_attr.query.index import Index
from lit_attr.query.lists import Family, families, kind_of
from lit_attr.storage.key_edges import KeyEdges
from lit_attr.storage.strongest import DatasetAttributionEntry, strongest
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import Measure, Selection
from lit_attr.topology.words import Direction, Sign


class Ranker:
    """Ranks the edges of a result.

    Args:
        query: Questions to the result.
        index: The result's index, where there is one.
    """

    def __init__(self, query: KeyEdges, index: Index | None) -> None:
        self._query = query
        self._blocks = query.blocks
        self._index = index
        found = families(query.blocks) if index else ()
        self._families = {(family.direction, family.layer, family.kind): family for family in found}

    def neighbours(
        self,
        direction: Direction,
        key: ComponentKey,
        measure: Measure,
        selection: Selection,
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
                family = self._families.get((direction, key.layer, kind))
                known = self._kept(family, key, measure, selection.k, sign, layers)
                if known is None:
                    ask = self._query.sources if direction == "sources" else self._query.targets
                    known = strongest(ask(key, measure, layers), selection.k, sign)
                entries += known
            return entries

        return rank(of_sign, selection, lambda entry: entry.value)

    def _kept(
        self,
        family: Family | None,
        key: ComponentKey,
        measure: Measure,
        k: int,
        sign: Sign,
        layers: list[str],
    ) -> list[DatasetAttributionEntry] | None:
        """What the index knows, if that is enough."""
        if family is None or self._index is None:
            return None
        kept = self._index.neighbours(family, key.index, measure, sign)
        if kept is None:
            return None
        wanted = [place for place, layer in enumerate(kept.layers) if layer in layers]
        if len(wanted) < k and not kept.complete:
            return None
        wanted = wanted[:k]
        keys = [ComponentKey(kept.layers[place], kept.indices[place]) for place in wanted]
        values = torch.from_numpy(kept.raw[wanted])
        if measure.normalized:
            others = self._scale(keys, "source" if family.direction == "sources" else "target")
            own = self._scale([key], "target" if family.direction == "sources" else "source")
            values = values / others / own if family.direction == "sources" else values / own / others
        return [
            DatasetAttributionEntry(str(key), key.layer, key.index, value)
            for key, value in zip(keys, values.tolist(), strict=True)
        ]

    def _scale(self, keys: list[ComponentKey], role: Literal["source", "target"]) -> torch.Tensor:
        ask = self._blocks.source_scale if role == "source" else self._blocks.target_scale
        scales = {layer: ask(layer) for layer in {key.layer for key in keys}}
        return torch.tensor([float(scales[key.layer][key.index]) for key in keys])


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
