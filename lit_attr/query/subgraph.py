"""The part of the attribution graph around some keys."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from lit_attr.errors import ConfigurationError
from lit_attr.storage.strongest import DatasetAttributionEntry
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import check_count
from lit_attr.topology.words import Direction

Ways = Literal["upstream", "downstream", "both"]
_WAYS: dict[Ways, tuple[Direction, ...]] = {
    "upstream": ("sources",),
    "downstream": ("targets",),
    "both": ("sources", "targets"),
}


def collect(
    keys: Sequence[ComponentKey],
    follow: Callable[[Direction, ComponentKey], Sequence[DatasetAttributionEntry]],
    depth: int,
    threshold: float,
    ways: Ways,
) -> dict[tuple[ComponentKey, ComponentKey], float]:
    """Edges from source to target with their values, nearest first.

    Upstream and downstream are followed by themselves: of what feeds a key, its other targets are not looked at.

    Args:
        keys: Where to begin.
        follow: The strongest sources, or targets, of a key.
        depth: How many edges away from a key at most.
        threshold: Edges of smaller absolute values are left out.
        ways: Which to follow.

    Raises:
        ConfigurationError: If there are no keys, or an option is not in its range.
    """
    if ways not in get_args(Ways):
        raise ConfigurationError(f"direction must be one of {list(get_args(Ways))}, found {ways!r}")
    if not keys:
        raise ConfigurationError("a subgraph begins with at least one key, found 0 keys")
    check_count("depth", depth)
    if not threshold >= 0:  # not a number is no threshold either
        raise ConfigurationError(f"threshold must be a number of at least 0, found {threshold!r}")
    edges: dict[tuple[ComponentKey, ComponentKey], float] = {}
    for way in _WAYS[ways]:
        seen, frontier = set(keys), list(dict.fromkeys(keys))
        for _ in range(depth):
            reached: list[ComponentKey] = []
            for node in frontier:
                for entry in follow(way, node):
                    other = ComponentKey(entry.layer, entry.component_idx)
                    if abs(entry.value) >= threshold:
                        edges[(other, node) if way == "sources" else (node, other)] = entry.value
                        reached.append(other)
            frontier = [node for node in dict.fromkeys(reached) if node not in seen]
            seen.update(frontier)
    return edges
