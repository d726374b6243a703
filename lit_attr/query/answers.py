"""Answers about components, tokens and edges.

What was not measured is never 0: the edges to a component that was no target of the harvest are unknown, and answers
say so in `was_harvested` and `n_not_harvested`. What was measured in a part of the data has a `sample`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lit_attr.query.estimates import Estimated
from lit_attr.query.found import NotHeld
from lit_attr.query.frames import to_frame
from lit_attr.storage.harvested_metrics import Sample
from lit_attr.topology.words import AnySign, AttrMetric, Direction, EdgeOrder, ErrorBasis

if TYPE_CHECKING:
    import polars

_NODE = {"component_key": str, "layer": str, "component_idx": int, "token": str}
# Columns of a frame that say how sure a value is.
_ESTIMATE = {"standard_error": float, "n_groups": float, "few_groups": bool, "low": float, "high": float}
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
class Neighbour(Estimated, Node):
    """A source or target of a key.

    Attributes:
        value: Attribution.
    """

    value: float


@dataclass(frozen=True)
class Edge(Estimated):
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
class SureAnswer(Answer):
    """What answers with single edges say.

    Attributes:
        standard_errors: What standard errors say: those of rows in `random order` how values would move on other text
            of the same kind, those of rows in `file order` only how they move within the text as it lies there. They
            are None where they were `not harvested`.
    """

    standard_errors: ErrorBasis = field(default="not harvested", kw_only=True)


@dataclass(frozen=True)
class Ranking(SureAnswer):
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
        n_separated: The largest number of first entries whose 95 % intervals overlap with those of no later entry of
            this list, in magnitude; None without standard errors.
        n_unsure: How many stronger ones than the last entry were left out, where only sure ones were asked for: all
            that are not sure, where there are fewer entries than were asked for. Weaker ones than the 4,096 strongest
            are not looked at. None where others were asked for, too.
    """

    question: Direction
    key: Node
    metric: AttrMetric
    sign: AnySign
    normalized: bool
    was_harvested: bool
    n_not_harvested: int
    entries: tuple[Neighbour, ...]
    n_separated: int | None = field(default=None, kw_only=True)
    n_unsure: int | None = field(default=None, kw_only=True)

    def frame(self) -> "polars.DataFrame":
        """A row for each entry; raises a ConfigurationError if polars is not installed."""
        columns = {**_NODE, "value": float}
        rows = [{name: getattr(entry, name) for name in columns} | _estimate(entry) for entry in self.entries]
        return to_frame(rows, {**columns, **_ESTIMATE})


@dataclass(frozen=True)
class EdgeAnswer(SureAnswer):
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
        raw_standard_error: Standard error of the raw value; see `Estimated`.
        normalized_standard_error: Standard error of the normalised value.
        raw_interval: The 95 % interval of the raw value.
        normalized_interval: The interval of the normalised value.
        n_groups: The effective number of groups of batches in which the source occurred.
        few_groups: Whether these are too few for an interval.
    """

    source: Node
    target: Node
    metric: AttrMetric
    was_harvested: bool
    raw: float | None
    normalized: float | None
    is_held: bool = field(default=True, kw_only=True)
    raw_standard_error: float | None = field(default=None, kw_only=True)
    normalized_standard_error: float | None = field(default=None, kw_only=True)
    raw_interval: tuple[float, float] | None = field(default=None, kw_only=True)
    normalized_interval: tuple[float, float] | None = field(default=None, kw_only=True)
    n_groups: float | None = field(default=None, kw_only=True)
    few_groups: bool | None = field(default=None, kw_only=True)

    def estimated(self, *, normalized: bool) -> Estimated:
        """How sure one of the two values is.

        Args:
            normalized: Whether the normalised one is meant, or the raw one.
        """
        return Estimated(
            standard_error=self.normalized_standard_error if normalized else self.raw_standard_error,
            n_groups=self.n_groups,
            few_groups=self.few_groups,
            interval=self.normalized_interval if normalized else self.raw_interval,
        )

    def frame(self) -> "polars.DataFrame":
        """One row; raises a ConfigurationError if polars is not installed."""
        values = {"raw": float, "normalized": float, "was_harvested": bool}
        values |= {"raw_standard_error": float, "normalized_standard_error": float}
        values |= {"n_groups": float, "few_groups": bool}
        row = {**ends(self.source, self.target), **{name: getattr(self, name) for name in values}}
        return to_frame([row], {**ENDS, **values})


@dataclass(frozen=True)
class StrongestEdges(SureAnswer):
    """The strongest edges between layers.

    Attributes:
        metric: `attr` or `attr_abs`.
        sign: The sign that was asked for.
        normalized: Whether values are divided by the scales of source and target.
        by: `pair` if these are the strongest of each pair of layers, `strength` if they are the strongest of all.
        n_not_harvested: How many components of the pairs' target layers cannot appear as targets, since they were no
            targets of the harvest.
        edges: Best first; of `pair`, pair by pair.
        n_separated: Number of first edges, as in a `Ranking`; None for several pairs, too.
        n_unsure: How many stronger ones were left out, as in a `Ranking`.
    """

    metric: AttrMetric
    sign: AnySign
    normalized: bool
    by: EdgeOrder
    n_not_harvested: int
    edges: tuple[Edge, ...]
    n_separated: int | None = field(default=None, kw_only=True)
    n_unsure: int | None = field(default=None, kw_only=True)

    def frame(self) -> "polars.DataFrame":
        """A row for each edge; raises a ConfigurationError if polars is not installed."""
        return edge_frame(self.edges)


@dataclass(frozen=True)
class Subgraph(SureAnswer):
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
        n_unsure: How many stronger edges of the nodes were not followed, where only sure ones were asked for; None
            where others were asked for, too.
    """

    keys: tuple[Node, ...]
    metric: AttrMetric
    sign: AnySign
    normalized: bool
    n_not_harvested: int
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    n_unsure: int | None = field(default=None, kw_only=True)

    def frame(self) -> "polars.DataFrame":
        """A row for each edge; raises a ConfigurationError if polars is not installed."""
        return edge_frame(self.edges)


def edge_frame(edges: Iterable[Edge]) -> "polars.DataFrame":
    """A row for each edge."""
    rows = [{**ends(edge.source, edge.target), "value": edge.value, **_estimate(edge)} for edge in edges]
    return to_frame(rows, {**ENDS, "value": float, **_ESTIMATE})


def n_separated(edges: Sequence[Neighbour | Edge]) -> int | None:
    """The largest number of first edges whose intervals overlap with those of no later one; None if none are known.

    Magnitudes are compared. Edges of one list share batches, and often a source or a target: what their estimates have
    in common is not known. Intervals that do not overlap are told apart whatever that is. Of an edge without an
    interval nothing is known, and it is told apart from no other.
    """
    if not any(edge.n_groups is not None for edge in edges):
        return None
    nearer, further = [], []
    for edge in edges:
        half = math.inf if edge.interval is None else (edge.interval[1] - edge.interval[0]) / 2
        nearer.append(abs(edge.value) - half)
        further.append(abs(edge.value) + half)
    least_before = list(accumulate(nearer, min))
    most_behind = list(accumulate(reversed(further), max))[::-1]
    return max((n for n in range(1, len(edges)) if least_before[n - 1] > most_behind[n]), default=0)


def _estimate(one: Estimated) -> dict[str, Any]:
    """The columns of a frame that say how sure a value is."""
    low, high = one.interval or (None, None)
    known = {"standard_error": one.standard_error, "n_groups": one.n_groups, "few_groups": one.few_groups}
    return {**known, "low": low, "high": high}


def ends(source: Node, target: Node) -> dict[str, Any]:
    """The columns of a frame that name an edge."""
    return {
        "source": source.component_key,
        "source_token": source.token,
        "target": target.component_key,
        "target_token": target.token,
    }
