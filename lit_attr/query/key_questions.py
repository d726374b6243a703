"""Questions about single components and tokens."""

from collections.abc import Sequence
from typing import Literal

from lit_attr.errors import EdgeNotFoundError
from lit_attr.query.answers import Edge, EdgeAnswer, Neighbour, Ranking, Subgraph
from lit_attr.query.opened import Opened
from lit_attr.query.subgraph import Ways, collect
from lit_attr.storage.strongest import DatasetAttributionEntry
from lit_attr.topology.address import OUTPUT, ComponentKey
from lit_attr.topology.choice import Measure, Selection
from lit_attr.topology.words import AnySign, AttrMetric, Direction


class KeyQuestions:
    """Questions about single components and tokens.

    Args:
        opened: The stored harvest.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._query = opened.query

    def sources(
        self,
        key: str,
        k: int = 10,
        sign: AnySign = "positive",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
    ) -> Ranking:
        """What feeds a component or an output token most.

        Args:
            key: The component or output token.
            k: How many at most.
            sign: `positive`, `negative`, or `both`, which ranks by magnitude.
            metric: `attr`, or `attr_abs` for effects on the activation's magnitude; output tokens have only `attr`.
            normalized: Divide by the scales of source and target; otherwise raw sums are ranked.
            layers: Those to look at; all if none are given.

        Raises:
            EdgeNotFoundError: If nothing feeds the key.
            KeyFormatError: If the key is malformed.
            ConfigurationError: If an option is not understood.
        """
        return self._ranking("sources", key, k, sign, metric, normalized, layers)

    def targets(
        self,
        key: str,
        k: int = 10,
        sign: AnySign = "positive",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
    ) -> Ranking:
        """What a component or a token feeds most; arguments and errors as for `sources`."""
        return self._ranking("targets", key, k, sign, metric, normalized, layers)

    def edge(self, source: str, target: str, metric: AttrMetric = "attr") -> EdgeAnswer:
        """One edge, raw and normalised.

        Args:
            source: What feeds.
            target: What is fed.
            metric: `attr` or `attr_abs`.

        Raises:
            EdgeNotFoundError: If there is no such edge.
            KeyFormatError: If a key is malformed.
        """
        reader, node = self._opened.reader, self._opened.node
        ends = reader.key(source), reader.key(target)
        raw, normalized = (self._query.edge(*ends, Measure(metric, normalized)) for normalized in (False, True))
        return EdgeAnswer(node(ends[0]), node(ends[1]), metric, raw, normalized)

    def subgraph(
        self,
        keys: Sequence[str],
        k: int = 3,
        depth: int = 2,
        threshold: float = 0.0,
        direction: Ways = "both",
        sign: AnySign = "both",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
    ) -> Subgraph:
        """The strongest edges that lead to some keys, and those that lead away from them.

        Args:
            keys: Where to begin.
            k: How many sources, or targets, of each node at most.
            depth: How many edges away from a key at most.
            threshold: Edges of smaller absolute values are left out.
            direction: `upstream` follows sources, `downstream` targets; `both` does each by itself.
            sign: As for `sources`.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of source and target.
            layers: Nodes beside the keys are of these; all if none are given.

        Raises:
            EdgeNotFoundError: If nothing feeds a key, and it feeds nothing.
            KeyFormatError: If a key is malformed.
            ConfigurationError: If an option is not understood.
        """
        reader, node = self._opened.reader, self._opened.node
        keys = [keys] if isinstance(keys, str) else keys
        begin, wanted = [reader.key(text) for text in keys], reader.matching(layers)
        for key in begin:
            if not (self._query.has_source(key) or self._query.has_target(key)):
                role: Literal["source", "target"] = "target" if key.layer == OUTPUT else "source"
                raise EdgeNotFoundError(f"no edges of {key}: {self._query.why_unknown(key, role)}")

        measure, selection = Measure(metric, normalized), Selection(k, sign, wanted)

        def follow(way: Direction, key: ComponentKey) -> list[DatasetAttributionEntry]:
            return self._opened.ranker.neighbours(way, key, measure, selection)

        found = collect(begin, follow, depth, threshold, direction)
        edges = tuple(Edge(node(source), node(target), value) for (source, target), value in found.items())
        nodes = dict.fromkeys([*map(node, begin), *(end for edge in edges for end in (edge.source, edge.target))])
        return Subgraph(tuple(map(node, begin)), metric, sign, normalized, tuple(nodes), edges)

    def _ranking(
        self,
        question: Direction,
        text: str,
        k: int,
        sign: AnySign,
        metric: AttrMetric,
        normalized: bool,
        layers: Sequence[str],
    ) -> Ranking:
        query, key = self._query, self._opened.reader.key(text)
        asks_sources = question == "sources"
        if not (query.has_target(key) if asks_sources else query.has_source(key)):
            why = query.why_unknown(key, "target" if asks_sources else "source")
            raise EdgeNotFoundError(f"no {question} of {text}: {why}")
        if asks_sources and key.layer == OUTPUT and metric == "attr_abs":
            raise EdgeNotFoundError(f"no sources of {text}: {query.why_no_edges(OUTPUT, metric)}")
        wanted = self._opened.reader.matching(layers)
        selection = Selection(k, sign, wanted)
        found = self._opened.ranker.neighbours(question, key, Measure(metric, normalized), selection)
        nodes = [self._opened.node(ComponentKey(entry.layer, entry.component_idx)) for entry in found]
        entries = [Neighbour(**vars(node), value=entry.value) for node, entry in zip(nodes, found, strict=True)]
        was_harvested = not asks_sources or query.was_harvested(key)
        return Ranking(question, self._opened.node(key), metric, sign, normalized, was_harvested, tuple(entries))
