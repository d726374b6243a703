"""Which components were targets of a harvest: what feeds the others was not measured."""

from collections.abc import Iterable

import torch
from jaxtyping import Int
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.storage.file_content import Content
from lit_attr.topology.address import EMBED, OUTPUT, ComponentKey
from lit_attr.topology.live import LiveSet


class HarvestedTargets:
    """Which components were targets of a harvest.

    All others have no place in stored rows, or rows that are zero and say nothing: these edges were not measured. The
    provenance lists them under `not_targets`. Without that entry, as in files of other tools, every number is taken as
    it is stored. Output tokens are always targets, and nothing feeds the embedding.

    Args:
        content: The content of a result.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._missing: dict[str, LiveSet] = {}

    def missing(self, layer: str) -> Int[Tensor, " component"]:
        """The components of a layer that were no targets, ascending.

        Raises:
            StorageError: If the provenance lists them otherwise than `lit_attr` does.
        """
        return self._known(layer).all_indices

    def include(self, key: ComponentKey) -> bool:
        """Whether a component was a target; true for tokens."""
        return self._known(key.layer).place(key.index) is None

    def n_missing(self, layers: Iterable[str]) -> int:
        """How many components of some layers were no targets."""
        return sum(len(self._known(layer)) for layer in layers)

    def share(self, layer: str) -> float:
        """The share of a layer's components that were targets, from 0 to 1; 1 for the output."""
        return 1 - self.n_missing([layer]) / max(self._content.layer_size(layer), 1)

    def _known(self, layer: str) -> LiveSet:
        if layer not in self._missing:
            n_all = self._content.layer_size(layer)
            recorded = torch.empty(0, dtype=torch.int64) if layer in (EMBED, OUTPUT) else self._recorded(layer, n_all)
            without_place = self._content.stored_targets(layer).others
            if len(recorded) and not torch.isin(without_place, recorded).all():
                raise StorageError(
                    f"live targets of {layer}: expected all components but those that the provenance's not_targets "
                    f"lists, found {int((~torch.isin(without_place, recorded)).sum()):,} others missing"
                )
            self._missing[layer] = LiveSet(n_all, recorded if len(recorded) else without_place)
        return self._missing[layer]

    def _recorded(self, layer: str, n_all: int) -> Int[Tensor, " component"]:
        indices = torch.from_numpy(self._content.recorded.not_targets(layer)).sort().values
        if len(indices) and not 0 <= int(indices[0]) <= int(indices[-1]) < n_all:
            wrong = next(index for index in indices.tolist() if not 0 <= index < n_all)
            raise StorageError(
                f"the provenance's not_targets of {layer} is damaged: expected indices below {n_all}, found {wrong}"
            )
        return indices[torch.cat((indices.new_ones(min(len(indices), 1)), indices.diff())) > 0]
