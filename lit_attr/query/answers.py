"""Answers: what was asked, and what was found."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_attr.query.frames import to_frame
from lit_attr.topology.words import AnySign, AttrMetric, Direction

if TYPE_CHECKING:
    import polars

_NODE = {"component_key": str, "layer": str, "component_idx": int, "token": str}
_EDGE = {"source": str, "source_token": str, "target": str, "target_token": str, "value": float}


@dataclass(frozen=True)
class Node:
    """A component, or a token.

    Attributes:
        component_key: `<layer>:<component_idx>`.
        layer: Canonical address.
        component_idx: Component index, or token id.
        token: Text of the token; None for components, and where no tokenizer was found.
    """

    component_key: str
    layer: str
    component_idx: int
    token: str | None


@dataclass(frozen=True)
class Neighbour(Node):
    """A source or target of a key.

    Attributes:
        value: Attribution.
    """

    value: float


@dataclass(frozen=True)
class Edge:
    """An edge.

    Attributes:
        source: What feeds.
        target: What is fed.
        value: Attribution.
    """

    source: Node
    target: Node
    value: float


@dataclass(frozen=True)
class Ranking:
    """The strongest sources or targets of a key.

    Attributes:
        question: Which.
        key: Of what.
        metric: `attr` or `attr_abs`.
        sign: Which were asked for.
        normalized: Whether values are divided by the scales of source and target.
        was_harvested: Whether the key was a target of the harvest; always true where its targets are asked for.
        entries: Best first.
    """

    question: Direction
    key: Node
    metric: AttrMetric
    sign: AnySign
    normalized: bool
    was_harvested: bool
    entries: tuple[Neighbour, ...]

    def frame(self) -> "polars.DataFrame":
        """A row for each entry; raises a ConfigurationError if polars is not installed."""
        return to_frame([vars(entry) for entry in self.entries], {**_NODE, "value": float})


@dataclass(frozen=True)
class EdgeAnswer:
    """One edge.

    Attributes:
        source: What feeds.
        target: What is fed.
        metric: `attr` or `attr_abs`.
        raw: The sum as it is stored.
        normalized: Divided by the scales of source and target.
    """

    source: Node
    target: Node
    metric: AttrMetric
    raw: float
    normalized: float

    def frame(self) -> "polars.DataFrame":
        """One row; raises a ConfigurationError if polars is not installed."""
        row = {**_ends(self.source, self.target), "raw": self.raw, "normalized": self.normalized}
        return to_frame([row], {**_without_value(_EDGE), "raw": float, "normalized": float})


@dataclass(frozen=True)
class StrongestEdges:
    """The strongest edges of each pair of layers.

    Attributes:
        metric: `attr` or `attr_abs`.
        sign: Which were asked for.
        normalized: Whether values are divided by the scales of source and target.
        edges: Pair by pair, best first.
    """

    metric: AttrMetric
    sign: AnySign
    normalized: bool
    edges: tuple[Edge, ...]

    def frame(self) -> "polars.DataFrame":
        """A row for each edge; raises a ConfigurationError if polars is not installed."""
        return edge_frame(self.edges)


@dataclass(frozen=True)
class Subgraph:
    """The strongest edges around some keys.

    Attributes:
        keys: Where it begins.
        metric: `attr` or `attr_abs`.
        sign: Which edges were followed.
        normalized: Whether values are divided by the scales of source and target.
        nodes: The keys, and what the edges lead to, nearest first.
        edges: Nearest first.
    """

    keys: tuple[Node, ...]
    metric: AttrMetric
    sign: AnySign
    normalized: bool
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def frame(self) -> "polars.DataFrame":
        """A row for each edge; raises a ConfigurationError if polars is not installed."""
        return edge_frame(self.edges)


def edge_frame(edges: Iterable[Edge]) -> "polars.DataFrame":
    """A row for each edge."""
    return to_frame([{**_ends(edge.source, edge.target), "value": edge.value} for edge in edges], _EDGE)


def _ends(source: Node, target: Node) -> dict[str, Any]:
    return {
        "source": source.component_key,
        "source_token": source.token,
        "target": target.component_key,
        "target_token": target.token,
    }


def _without_value(schema: Mapping[str, type]) -> dict[str, type]:
    return {name: kind for name, kind in schema.items() if name != "value"}
