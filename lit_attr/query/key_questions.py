"""Questions about single components and tokens."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Literal

from lit_attr.errors import EdgeNotFoundError, NotHeldError
from lit_attr.query.answers import Edge, EdgeAnswer, Neighbour, Ranking, Subgraph, n_separated
from lit_attr.query.estimates import Estimated
from lit_attr.query.found import Found, NotHeld, added
from lit_attr.query.opened_result import OpenedResult
from lit_attr.query.subgraph import Reach, collect
from lit_attr.query.sure_edges import sure_edges
from lit_attr.storage.top_k import DatasetAttributionEntry
from lit_attr.topology.address import OUTPUT, ComponentKey
from lit_attr.topology.choice import Measure, Selection
from lit_attr.topology.words import AttrMetric, Direction


class KeyQuestions:
    """Answers questions about single components and tokens; `Explorer` says what they mean.

    Args:
        result: The result that answers.
    """

    def __init__(self, result: OpenedResult) -> None:
        self._result = result

    def ranking(self, question: Direction, text: str, measure: Measure, selection: Selection) -> Ranking:
        """The strongest sources or targets of a key."""
        result, key = self._result, self._result.reader.key(text)
        sample = result.storage.sample(measure.metric)
        self._check_ranking(question, text, key, measure)
        found, unsure = self._neighbours(question, key, measure, selection)
        nodes = [result.node(_key_of(entry)) for entry in found.entries]
        estimates = self._estimates(question, key, found.entries, measure)
        entries = tuple(
            Neighbour(**vars(node), **vars(estimate), value=entry.value)
            for node, estimate, entry in zip(nodes, estimates, found.entries, strict=True)
        )
        node, n_not_harvested = result.node(key), 0
        if question == "targets":
            n_not_harvested = result.harvested.n_missing(self._fed(key, measure, selection))
        was_harvested = question == "targets" or node.was_harvested
        asked = measure.metric, selection.sign, measure.normalized
        said = was_harvested, n_not_harvested, entries
        return Ranking(
            *(question, node, *asked, *said),
            sample=sample,
            not_held=found.not_held,
            standard_errors=result.storage.error_basis,
            n_separated=n_separated(entries),
            n_unsure=len(unsure) if selection.sure else None,
        )

    def edge(self, source: str, target: str, metric: AttrMetric) -> EdgeAnswer:
        """One edge, raw and normalised."""
        reader, node = self._result.reader, self._result.node
        ends = reader.key(source), reader.key(target)
        sample = self._result.storage.sample(metric)
        was_measured = self._result.key_edges.was_measured(*ends, metric)
        raw = normalized = None
        try:
            raw, normalized = (self._result.ranker.edge(*ends, Measure(metric, scaled)) for scaled in (False, True))
            is_held = True
        except NotHeldError:
            is_held = False
        of_raw, of_normalized = (
            self._result.estimator.of([ends], [value], Measure(metric, scaled))[0]
            for scaled, value in ((False, raw), (True, normalized))
        )
        return EdgeAnswer(
            *(node(ends[0]), node(ends[1]), metric, was_measured, raw, normalized),
            is_held=is_held,
            raw_standard_error=of_raw.standard_error,
            normalized_standard_error=of_normalized.standard_error,
            raw_interval=of_raw.interval,
            normalized_interval=of_normalized.interval,
            n_groups=of_normalized.n_groups,
            few_groups=of_normalized.few_groups,
            sample=sample,
            standard_errors=self._result.storage.error_basis,
        )

    def subgraph(self, keys: Sequence[str], reach: Reach, measure: Measure, selection: Selection) -> Subgraph:
        """The strongest edges that lead to some keys, and those that lead away from them."""
        result, node = self._result, self._result.node
        sample = result.storage.sample(measure.metric)
        begin = [result.reader.key(text) for text in ([keys] if isinstance(keys, str) else keys)]
        for key in begin:
            if not (result.key_edges.has_source(key) or result.key_edges.has_target(key)):
                role: Literal["source", "target"] = "target" if key.layer == OUTPUT else "source"
                raise EdgeNotFoundError(f"no edges of {key}: {result.key_edges.why_unknown(key, role)}")

        fed: set[str] = set()
        not_held: list[NotHeld | None] = []
        passed_over: set[tuple[ComponentKey, ComponentKey]] = set()

        def follow(way: Direction, key: ComponentKey) -> list[DatasetAttributionEntry]:
            if way == "targets":
                fed.update(self._fed(key, measure, selection))
            found, unsure = self._neighbours(way, key, measure, selection)
            not_held.append(found.not_held)
            passed_over.update(_ends(way, key, (one for one in unsure if abs(one.value) >= reach.threshold)))
            return found.entries

        values = collect(begin, follow, reach)
        estimates = result.estimator.of([*values], [*values.values()], measure)
        edges = tuple(
            Edge(node(source), node(target), value, **vars(estimate))
            for ((source, target), value), estimate in zip(values.items(), estimates, strict=True)
        )
        nodes = dict.fromkeys([*map(node, begin), *(end for edge in edges for end in (edge.source, edge.target))])
        asked = measure.metric, selection.sign, measure.normalized
        n_not_harvested = result.harvested.n_missing(fed)
        said = n_not_harvested, tuple(nodes), edges
        return Subgraph(
            *(tuple(map(node, begin)), *asked, *said),
            sample=sample,
            not_held=added(not_held),
            standard_errors=result.storage.error_basis,
            n_unsure=len(passed_over) if selection.sure else None,
        )

    def _neighbours(
        self, way: Direction, key: ComponentKey, measure: Measure, selection: Selection
    ) -> tuple[Found[DatasetAttributionEntry], list[DatasetAttributionEntry]]:
        """The strongest sources or targets of a key, and stronger ones that are left out, since they are not sure."""
        ask = partial(self._result.ranker.neighbours, way, key, measure)
        if not selection.sure:
            return ask(selection), []
        return sure_edges(ask, lambda entries: self._estimates(way, key, entries, measure), selection)

    def _estimates(
        self, way: Direction, key: ComponentKey, entries: Sequence[DatasetAttributionEntry], measure: Measure
    ) -> list[Estimated]:
        """How sure the edges between a key and its sources or targets are."""
        return self._result.estimator.of([*_ends(way, key, entries)], [entry.value for entry in entries], measure)

    def _fed(self, key: ComponentKey, measure: Measure, selection: Selection) -> list[str]:
        """The layers among which a key's targets are sought."""
        layers = self._result.blocks.target_layers(key.layer, measure.metric)
        return [layer for layer in layers if selection.admits(layer)]

    def _check_ranking(self, question: Direction, text: str, key: ComponentKey, measure: Measure) -> None:
        key_edges, asks_sources = self._result.key_edges, question == "sources"
        if not (key_edges.has_target(key) if asks_sources else key_edges.has_source(key)):
            why = key_edges.why_unknown(key, "target" if asks_sources else "source")
            raise EdgeNotFoundError(f"no {question} of {text}: {why}")
        if asks_sources and key.layer == OUTPUT and measure.metric == "attr_abs":
            raise EdgeNotFoundError(f"no sources of {text}: {key_edges.why_no_edges(OUTPUT, measure.metric)}")


def _ends(
    way: Direction, key: ComponentKey, entries: Iterable[DatasetAttributionEntry]
) -> Iterator[tuple[ComponentKey, ComponentKey]]:
    """The edges between a key and its sources or targets."""
    return ((other, key) if way == "sources" else (key, other) for other in map(_key_of, entries))


def _key_of(entry: DatasetAttributionEntry) -> ComponentKey:
    return ComponentKey(entry.layer, entry.component_idx)
