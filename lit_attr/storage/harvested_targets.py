"""Which components were targets of a harvest: what feeds the others was not measured."""

from collections.abc import Iterable

from lit_attr.errors import StorageError
from lit_attr.storage.file_content import Content
from lit_attr.topology.address import EMBED, OUTPUT, ComponentKey


class HarvestedTargets:
    """Which components were targets of a harvest.

    The stored rows of all others are zero, and say nothing: these edges were not measured. The provenance lists them
    under `not_targets`. Without that entry, as in files of other tools, every number is taken as it is stored. Output
    tokens are always targets, and nothing feeds the embedding.

    Args:
        content: The content of a result.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._missing: dict[str, frozenset[int]] = {}

    def missing(self, layer: str) -> frozenset[int]:
        """The components of a layer that were no targets.

        Raises:
            StorageError: If the provenance lists them otherwise than `lit_attr` does.
        """
        if layer not in self._missing:
            self._missing[layer] = frozenset() if layer in (EMBED, OUTPUT) else self._read(layer)
        return self._missing[layer]

    def include(self, key: ComponentKey) -> bool:
        """Whether a component was a target; true for tokens."""
        return key.index not in self.missing(key.layer)

    def n_missing(self, layers: Iterable[str]) -> int:
        """How many components of some layers were no targets."""
        return sum(len(self.missing(layer)) for layer in layers)

    def share(self, layer: str) -> float:
        """The share of a layer's components that were targets, from 0 to 1; 1 for the output."""
        size = len(self._content.ci_sum.get(layer, ()))
        return 1 - len(self.missing(layer)) / max(size, 1)

    def _read(self, layer: str) -> frozenset[int]:
        indices = frozenset(self._content.recorded.not_targets(layer).tolist())
        size = len(self._content.ci_sum.get(layer, ()))
        if wrong := sorted(index for index in indices if not 0 <= index < size):
            raise StorageError(
                f"the provenance's not_targets of {layer} is damaged: expected indices below {size}, found {wrong[0]}"
            )
        return indices
