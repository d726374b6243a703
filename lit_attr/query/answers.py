"""Answers about components, tokens and edges.

What was not measured is never 0: the edges to a component that was no target of the harvest are unknown, and answers
say so in `was_harvested` and `n_not_harvested`. What was measured in a part of the data has a `sample`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lit_attr.query.found import NotHeld
from lit_attr.query.frames import to_frame
from lit_attr.storage.harvested_metrics import Sample
from lit_attr.topology.words import AnySign, AttrMetric, Direction, EdgeOrder

if TYPE_CHECKING:
    import polars

_NODE = {"component_key": str, "layer": str, "component_idx": int, "token": str}
# Columns of a frame that name an edge.
ENDS = {"source": str, "source_token": str, "target": str, "target_token": str}


@dataclass(frozen=True)
class Node:
    """A component, or a token.

    Attributes:
        component_key: `<layer>:<component_idx>`.
        layer: Canonical address.
        component_idx: Component index, or token id.
        token: Text of the token; None for components, and where no tokenizer was found.
        was_harvested: False for a component that was no target of the harvest: what feeds it was not measured.
    """

    component_key: str
    layer: str
    component_idx: int
    token: str | None
    was_harvested: bool = field(default=True, kw_only=True)


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
class Answer:
    """What all answers with attributions say.

    Attributes:
        sample: The part of the data from which the values are estimated; None if they are of all of it.
        not_held: What was asked for and dropped, where the result holds its strongest edges alone; None if nothing is
            missing.
    """

    sample: Sample | None = field(default=None, kw_only=True)
    not_held: NotHeld | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Ranking(Answer):
    """The strongest sources or targets of a key.

    Attributes:
        question: `sources` or `targets`.
        key: The component or token whose sources or targets these are.
        metric: `attr` or `attr_abs`.
        sign: The sign that was asked for.
        normalized: Whether values are divided by the scales of source and target.
        was_harvested: False if the key's sources are asked for and it was no target of the harvest: its sources were
            not measured.
        n_not_harvested: How many components of the asked layers cannot appear among the targets, since they were no
            targets of the harvest; 0 where sources are asked for.
        entries: Best first.
    """

    question: Direction
    key: Node
    metric: AttrMetric
    sign: AnySign
    normalized: bool
    was_harvested: bool
    n_not_harvested: int
    entries: tuple[Neighbour, ...]

    def frame(self) -> "polars.DataFrame":
        """A row for each entry; raises a ConfigurationError if polars is not installed."""
        columns = {**_NODE, "value": float}
        return to_frame([{name: getattr(entry, name) for name in columns} for entry in self.entries], columns)


@dataclass(frozen=True)
class EdgeAnswer(Answer):
    """One edge.

    Attributes:
        source: What feeds.
        target: What is fed.
        metric: `attr` or `attr_abs`.
        was_harvested: Whether the target was a target of the harvest, so that the edge was measured.
        raw: The sum as it is stored; None if the edge was not measured, or is not held.
        normalized: The sum divided by the scales of source and target; None if the edge was not measured, or is not
            held.
        is_held: False where the result holds its strongest edges alone, and this is none of them.
    """

    source: Node
    target: Node
    metric: AttrMetric
    was_harvested: bool
    raw: float | None
    normalized: float | None
    is_held: bool = field(default=True, kw_only=True)

    def frame(self) -> "polars.DataFrame":
        """One row; raises a ConfigurationError if polars is not installed."""
        values = {"raw": float, "normalized": float, "was_harvested": bool}
        row = {**ends(self.source, self.target), **{name: getattr(self, name) for name in values}}
        return to_frame([row], {**ENDS, **values})


@dataclass(frozen=True)
class StrongestEdges(Answer):
    """The strongest edges between layers.

    Attributes:
        metric: `attr` or `attr_abs`.
        sign: The sign that was asked for.
        normalized: Whether values are divided by the scales of source and target.
        by: `pair` if these are the strongest of each pair of layers, `strength` if they are the strongest of all.
        n_not_harvested: How many components of the pairs' target layers cannot appear as targets, since they were no
            targets of the harvest.
        edges: Best first; of `pair`, pair by pair.
    """

    metric: AttrMetric
    sign: AnySign
    normalized: bool
    by: EdgeOrder
    n_not_harvested: int
    edges: tuple[Edge, ...]

    def frame(self) -> "polars.DataFrame":
        """A row for each edge; raises a ConfigurationError if polars is not installed."""
        return edge_frame(self.edges)


@dataclass(frozen=True)
class Subgraph(Answer):
    """The strongest edges around some keys.

    Attributes:
        keys: Where it begins.
        metric: `attr` or `attr_abs`.
        sign: The sign of the edges that were followed.
        normalized: Whether values are divided by the scales of source and target.
        n_not_harvested: How many components of the layers that were looked at downstream cannot appear as targets,
            since they were no targets of the harvest; 0 where only sources are followed.
        nodes: The keys, and what the edges lead to, nearest first.
        edges: Nearest first.
    """

    keys: tuple[Node, ...]
    metric: AttrMetric
    sign: AnySign
    normalized: bool
    n_not_harvested: int
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def frame(self) -> "polars.DataFrame":
        """A row for each edge; raises a ConfigurationError if polars is not installed."""
        return edge_frame(self.edges)


def edge_frame(edges: Iterable[Edge]) -> "polars.DataFrame":
    """A row for each edge."""
    return to_frame(
        [{**ends(edge.source, edge.target), "value": edge.value} for edge in edges], {**ENDS, "value": float}
    )


def ends(source: Node, target: Node) -> dict[str, Any]:
    """The columns of a frame that name an edge."""
    return {
        "source": source.component_key,
        "source_token": source.token,
        "target": target.component_key,
        "target_token": target.token,
    }
