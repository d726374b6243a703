"""The part of the attribution graph around some keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lit_attr.errors import ConfigurationError
from lit_attr.storage.top_k import DatasetAttributionEntry
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import check_count
from lit_attr.topology.words import WAYS, Direction, Ways

_WAYS: dict[Ways, tuple[Direction, ...]] = {
    "upstream": ("sources",),
    "downstream": ("targets",),
    "both": ("sources", "targets"),
}


@dataclass(frozen=True)
class Reach:
    """How far a subgraph goes.

    Attributes:
        depth: How many edges away from a key at most.
        threshold: Edges of smaller absolute values are left out.
        direction: `upstream` follows sources, `downstream` targets; `both` does each by itself.

    Raises:
        ConfigurationError: If a number is not in its range, or the direction is unknown.
    """

    depth: int
    threshold: float
    direction: Ways

    def __post_init__(self) -> None:
        """Check numbers and direction."""
        if self.direction not in WAYS:
            raise ConfigurationError(f"direction must be one of {list(WAYS)}, found {self.direction!r}")
        check_count("depth", self.depth)
        if not self.threshold >= 0:  # not a number is no threshold either
            raise ConfigurationError(f"threshold must be a number of at least 0, found {self.threshold!r}")


def collect(
    keys: Sequence[ComponentKey],
    follow: Callable[[Direction, ComponentKey], Sequence[DatasetAttributionEntry]],
    reach: Reach,
) -> dict[tuple[ComponentKey, ComponentKey], float]:
    """Edges from source to target with their values, nearest first.

    Upstream and downstream are followed by themselves: other targets of what feeds a key are not looked at.

    Args:
        keys: Where to begin.
        follow: The strongest sources, or targets, of a key.
        reach: How far to go.

    Raises:
        ConfigurationError: If there are no keys.
    """
    if not keys:
        raise ConfigurationError("a subgraph begins with at least one key, found 0 keys")
    edges: dict[tuple[ComponentKey, ComponentKey], float] = {}
    for way in _WAYS[reach.direction]:
        seen, frontier = set(keys), list(dict.fromkeys(keys))
        for _ in range(reach.depth):
            reached: list[ComponentKey] = []
            for node in frontier:
                for entry in follow(way, node):
                    other = ComponentKey(entry.layer, entry.component_idx)
                    if abs(entry.value) >= reach.threshold:
                        edges[(other, node) if way == "sources" else (node, other)] = entry.value
                        reached.append(other)
            frontier = [node for node in dict.fromkeys(reached) if node not in seen]
            seen.update(frontier)
    return edges
