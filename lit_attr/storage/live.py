"""The compact form of a result: which sources and targets have a place in its tensors of edges."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.errors import shown as short
from lit_attr.topology.live import LiveSet
from lit_attr.topology.words import Direction


@dataclass(frozen=True, eq=False)
class Live:
    """The components, and token ids, that have a place in the tensors of edges; ascending, int64.

    Edges from a source without a place are zero. A component without a place was no target of the harvest: what feeds
    it was not measured. Output tokens all have a place.

    Attributes:
        sources: Layer, or `embed`, to the components, or token ids, that have a column.
        targets: Layer to the components that have a row.
    """

    sources: Mapping[str, Int[Tensor, " _source"]]
    targets: Mapping[str, Int[Tensor, " _target"]]

    @classmethod
    def from_entry(cls, entry: object) -> "Live":
        """Read what a file holds under `live`.

        Raises:
            StorageError: If it is not what `to_entry` gives.
        """
        if not isinstance(entry, Mapping) or entry.keys() != {"sources", "targets"}:
            raise StorageError(f"live: expected sources and targets, found {short(entry)}")
        for side, by_layer in entry.items():
            if not isinstance(by_layer, Mapping) or not all(isinstance(layer, str) for layer in by_layer):
                raise StorageError(f"live {side}: expected layers, found {short(by_layer)}")
        return cls(**entry)

    def to_entry(self) -> dict[str, dict[str, Tensor]]:
        """What a file holds under `live`."""
        return {
            side: {layer: ids.detach().cpu().contiguous() for layer, ids in by_layer.items()}
            for side, by_layer in (("sources", self.sources), ("targets", self.targets))
        }

    @classmethod
    def union(cls, several: Sequence["Live"]) -> "Live":
        """What has a place in any of some results, whose layers are the same."""

        def joined(sides: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            together = {layer: torch.cat([ids[layer] for ids in sides]).sort().values for layer in sides[0]}
            return {layer: ids[ids.diff(prepend=ids.new_tensor([-1])) > 0] for layer, ids in together.items()}

        return cls(joined([one.sources for one in several]), joined([one.targets for one in several]))

    def check(self, n_all: Mapping[str, int], sources: Iterable[str], targets: Iterable[str]) -> None:
        """Refuse what cannot be the live sources and targets of a result.

        Args:
            n_all: Layer, or `embed`, to the number of its components, or token ids.
            sources: Layers that feed anything.
            targets: Layers of components that anything feeds.

        Raises:
            StorageError: If a layer is missing or unknown, or its entry is no ascending list of its components.
        """
        for side, by_layer, needed in (("sources", self.sources, sources), ("targets", self.targets, targets)):
            if missing := sorted({*needed} - by_layer.keys()):
                raise StorageError(f"live {side}: expected an entry of {missing[0]}, which has edges, found none")
            for layer, ids in by_layer.items():
                if layer not in n_all:
                    raise StorageError(f"live {side}: expected layers of the result, found {short(layer)}")
                _check_ids(f"live {side} of {layer}", ids, n_all[layer])


def _check_ids(name: str, ids: object, n_all: int) -> None:
    if not isinstance(ids, Tensor) or ids.dtype != torch.int64 or ids.ndim != 1:
        found = f"{ids.dtype} of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else short(ids)
        raise StorageError(f"{name}: expected a list of int64, found {found}")
    if len(ids) and not (int(ids[0]) >= 0 and int(ids[-1]) < n_all and bool((ids.diff() > 0).all())):
        raise StorageError(f"{name}: expected ascending numbers from 0 to {n_all - 1}, found others")


def members(live: Live | None, side: Direction, layer: str, n_all: int) -> LiveSet:
    """Which components of a layer have a place: all of them in the dense form, and where nothing is said of a layer.

    Args:
        live: What has a place; None in the dense form.
        side: Whether as sources or as targets.
        layer: The layer.
        n_all: Number of its components, or token ids.
    """
    if live is None:
        return LiveSet(n_all)
    return LiveSet(n_all, (live.sources if side == "sources" else live.targets).get(layer))
