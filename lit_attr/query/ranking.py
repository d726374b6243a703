"""The strongest neighbours of a key, from an index where it knows them.

With an index and without, the answers are the same, but for the order of equal values and the last bits of attributions
to output tokens, which are products.
"""

from collections.abc import Callable, Container, Iterable
from typing import Literal, TypeVar, get_args

import torch

from lit_attr.errors import ConfigurationError
from lit_attr.query.index import Index
from lit_attr.query.lists import Family, families, kind_of
from lit_attr.storage.key_edges import KeyEdges
from lit_attr.storage.strongest import DatasetAttributionEntry, strongest
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.words import SIGNS, AnySign, AttrMetric, Direction, Sign


class Ranker:
    """Ranks the edges of a stored harvest.

    Args:
        query: To the stored harvest.
        index: Its index, where there is one.
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
        k: int,
        sign: AnySign,
        metric: AttrMetric,
        normalized: bool,
        layers: Container[str] | None,
    ) -> list[DatasetAttributionEntry]:
        """The strongest sources or targets of a key, best first.

        Args:
            direction: Which.
            key: A key that has some.
            k: How many at most.
            sign: `both` ranks by magnitude.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of source and target.
            layers: Those to look at; all if None.

        Raises:
            ConfigurationError: If `k` is not positive, or the sign is unknown.
            StorageError: If values are not finite.
        """
        find = self._blocks.source_layers if direction == "sources" else self._blocks.target_layers
        by_kind: dict[str, list[str]] = {}
        for layer in find(key.layer, metric):
            if layers is None or layer in layers:
                by_kind.setdefault(kind_of(layer), []).append(layer)

        def of_sign(one: Sign) -> list[DatasetAttributionEntry]:
            found: list[DatasetAttributionEntry] = []
            for kind, wanted in by_kind.items():
                kept = self._kept(
                    self._families.get((direction, key.layer, kind)), key, k, one, metric, normalized, wanted
                )
                if kept is None:
                    ask = self._query.sources if direction == "sources" else self._query.targets
                    kept = strongest(ask(key, metric, normalized, wanted), k, one)
                found += kept
            return found

        return rank(of_sign, k, sign, lambda entry: entry.value)

    def _kept(
        self,
        family: Family | None,
        key: ComponentKey,
        k: int,
        sign: Sign,
        metric: AttrMetric,
        normalized: bool,
        layers: list[str],
    ) -> list[DatasetAttributionEntry] | None:
        """What the index knows, if that is enough."""
        if family is None or self._index is None:
            return None
        kept = self._index.neighbours(family, key.index, metric, normalized, sign)
        if kept is None:
            return None
        wanted = [place for place, layer in enumerate(kept.layers) if layer in layers]
        if len(wanted) < k and not kept.complete:
            return None
        wanted = wanted[:k]
        keys = [ComponentKey(kept.layers[place], kept.indices[place]) for place in wanted]
        values = torch.from_numpy(kept.raw[wanted])
        if normalized:
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
    find: Callable[[Sign], Iterable[Ranked]], k: int, sign: AnySign, value: Callable[[Ranked], float]
) -> list[Ranked]:
    """The strongest of what is found of one sign, or of both by magnitude; best first.

    Args:
        find: At least the `k` strongest of a sign.
        k: How many at most.
        sign: Which end, or `both`.
        value: Of what was found.

    Raises:
        ConfigurationError: If `k` is not positive, or the sign is unknown.
    """
    if sign not in get_args(AnySign):
        raise ConfigurationError(f"sign must be one of {list(get_args(AnySign))}, found {sign!r}")
    if k < 1:
        raise ConfigurationError(f"k must be at least 1, found {k}")
    found = [one for wanted in (SIGNS if sign == "both" else (sign,)) for one in find(wanted)]
    return sorted(found, key=lambda one: -abs(value(one)))[:k]
