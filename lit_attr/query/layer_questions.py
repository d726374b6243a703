"""Questions about pairs of layers."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter

import torch

from lit_attr.errors import ConfigurationError
from lit_attr.query.answers import Edge, StrongestEdges, n_separated
from lit_attr.query.estimates import Estimated
from lit_attr.query.found import Found, added, strongest_of
from lit_attr.query.layer_answers import LayerBlock, LayerMatrix
from lit_attr.query.layer_pairs import KeyEdge, layer_pairs
from lit_attr.query.listed_edges import ListedEdges
from lit_attr.query.opened_result import OpenedResult
from lit_attr.query.strongest_edges import Edges, strongest_of_pairs, strongest_of_targets
from lit_attr.query.strongest_lists import StrongestLists
from lit_attr.query.sure_edges import sure_edges
from lit_attr.storage.compact import with_zeros
from lit_attr.storage.edge_errors import EdgeErrors
from lit_attr.storage.top_k import check_finite
from lit_attr.topology.address import OUTPUT, ComponentKey, in_order
from lit_attr.topology.choice import Measure, Selection, check_count
from lit_attr.topology.words import EDGE_ORDERS, PER, STATISTICS, AttrMetric, EdgeOrder, Per, Statistic

# Edges of a block that is computed: 400 MB.
_LARGEST_BLOCK = 10**8
_Pair = tuple[str, str]


class LayerQuestions:
    """Answers questions about pairs of layers; `Explorer` says what they mean.

    Args:
        result: The result that answers.
    """

    def __init__(self, result: OpenedResult) -> None:
        self._result = result

    def matrix(self, statistic: Statistic, measure: Measure, layers: Sequence[str]) -> LayerMatrix:
        """The edge mass between layers, or the mean edge."""
        if statistic not in STATISTICS:
            raise ConfigurationError(f"statistic must be one of {list(STATISTICS)}, found {statistic!r}")
        result, sample = self._result, self._result.storage.sample(measure.metric)
        wanted = result.reader.matching(layers)
        pairs = self._pairs(measure.metric, wanted)
        shares = {pair: result.harvested.share(pair[1]) for pair in pairs}
        values: dict[_Pair, float] = {}
        for source, target in (pair for pair in pairs if shares[pair]):
            mass = result.pairs.mass((source, target), measure)
            n_targets = result.storage.layer_size(target) - result.harvested.n_missing([target])
            n_edges = result.storage.layer_size(source) * n_targets
            values[source, target] = mass if statistic == "mass" else mass / max(n_edges, 1)
        sources, targets = (in_order({pair[end] for pair in pairs}) for end in (0, 1))
        rows, harvested = (
            tuple(tuple(known.get((source, target)) for source in sources) for target in targets)
            for known in (values, shares)
        )
        return LayerMatrix(
            measure.metric, statistic, measure.normalized, sources, targets, rows, harvested, sample=sample
        )

    def block(self, source_layer: str, target_layer: str, measure: Measure) -> LayerBlock:
        """All edges between two layers."""
        result, blocks = self._result, self._result.blocks
        sample = result.storage.sample(measure.metric)
        source, target = result.layer_pair(source_layer, target_layer, measure.metric)
        result.storage.check_holds_edges()
        not_harvested = result.harvested.missing(target)
        n_edges = result.storage.layer_size(source) * result.storage.layer_size(target)
        is_stored = blocks.n_stored(source, target) == n_edges
        # Raw numbers that are all measured and stored are the file's own, and need no memory.
        is_own = is_stored and not (measure.normalized or target == OUTPUT or len(not_harvested))
        if n_edges > _LARGEST_BLOCK and not is_own:
            raise ConfigurationError(
                f"the block from {source} to {target} has {n_edges:,} edges, and at most {_LARGEST_BLOCK:,} are "
                "computed at once: ask for single keys, or for the raw block of a layer whose components were all "
                "targets of the harvest, of a result in the dense form"
            )
        values = blocks.tile(source, target, measure)
        check_finite(values, f"{source} to {target}")
        if not is_stored:
            values = with_zeros(result.storage, source, target, values)
        if len(not_harvested):
            values = values.index_fill(0, not_harvested, torch.nan)
        sources, targets = (
            tuple(result.node(ComponentKey(layer, index)) for index in range(result.storage.layer_size(layer)))
            for layer in (source, target)
        )
        errors = n_groups = None
        if n_edges <= _LARGEST_BLOCK and (known := EdgeErrors.of(blocks)) is not None:
            stored = with_zeros(result.storage, source, target, known.tile(source, target, measure), torch.nan)
            errors = stored.index_fill(0, not_harvested, torch.nan).numpy()
            n_groups = known.n_groups_of_all(source, target, measure.metric).numpy()
        return LayerBlock(
            *(sources, targets, measure.metric, measure.normalized, len(not_harvested), values.numpy()),
            standard_error=errors,
            n_groups=n_groups,
            sample=sample,
            standard_errors=result.storage.error_basis,
        )

    def edges(self, by: EdgeOrder, measure: Measure, selection: Selection) -> StrongestEdges:
        """The strongest edges of each pair of layers, or of all."""
        if by not in EDGE_ORDERS:
            raise ConfigurationError(f"by must be one of {list(EDGE_ORDERS)}, found {by!r}")
        pairs = self._pairs(measure.metric, selection.layers)
        of_pairs = self._of_pairs(pairs, measure, selection)
        if by == "strength":
            of_pairs = [strongest_of(of_pairs, selection.k, attrgetter("score"))]
        return self._answer(by, {target for _, target in pairs}, measure, selection, of_pairs)

    def pair_edges(
        self, source_layer: str, target_layer: str, measure: Measure, selection: Selection
    ) -> StrongestEdges:
        """The strongest edges between two layers."""
        pair = self._result.layer_pair(source_layer, target_layer, measure.metric)
        ask = partial(self._result.pairs.edges, pair, measure)
        if selection.sure:
            found, unsure = sure_edges(ask, lambda edges: self._estimates(edges, measure), selection)
        else:
            found, unsure = ask(selection), []
        answer = self._answer("pair", {pair[1]}, measure, selection, [found])
        return replace(answer, n_unsure=len(unsure) if selection.sure else None)

    def strongest(self, per: Per, k: int, metric: AttrMetric) -> Iterator[Edges]:
        """The strongest edges of each pair of layers, or of each target, some at a time."""
        if per not in PER:
            raise ConfigurationError(f"per must be one of {list(PER)}, found {per!r}")
        check_count("k", k)
        blocks, index = self._result.blocks, self._result.index
        blocks.content.check_harvested(metric)
        if isinstance(index, StrongestLists):
            listed = ListedEdges(blocks, index)
            tables = listed.of_pairs(metric, k) if per == "pair" else listed.of_targets(metric, k)
        else:
            tables = (strongest_of_pairs if per == "pair" else strongest_of_targets)(blocks, metric, k)
        return (self._result.estimator.table(edges, metric) for edges in tables)

    def _of_pairs(self, pairs: Iterable[_Pair], measure: Measure, selection: Selection) -> Iterable[Found[KeyEdge]]:
        return (self._result.pairs.edges(pair, measure, selection) for pair in pairs)

    def _answer(
        self,
        by: EdgeOrder,
        targets: Iterable[str],
        measure: Measure,
        selection: Selection,
        of_pairs: Iterable[Found[KeyEdge]],
    ) -> StrongestEdges:
        node, n_not_harvested = self._result.node, self._result.harvested.n_missing(targets)
        found = list(of_pairs)
        entries = [entry for some in found for entry in some.entries]
        estimates = self._estimates(entries, measure)
        shown = tuple(
            Edge(node(e.source), node(e.target), e.value, **vars(estimate))
            for e, estimate in zip(entries, estimates, strict=True)
        )
        return StrongestEdges(
            *(measure.metric, selection.sign, measure.normalized, by, n_not_harvested, shown),
            sample=self._result.storage.sample(measure.metric),
            not_held=added(some.not_held for some in found),
            standard_errors=self._result.storage.error_basis,
            n_separated=n_separated(shown) if len(found) == 1 else None,
        )

    def _estimates(self, edges: Sequence[KeyEdge], measure: Measure) -> list[Estimated]:
        return self._result.estimator.of(
            [(edge.source, edge.target) for edge in edges],
            [edge.value for edge in edges],
            measure,
            [edge.stored_error for edge in edges],
        )

    def _pairs(self, metric: AttrMetric, layers: Container[str] | None) -> list[_Pair]:
        pairs = layer_pairs(self._result.blocks, metric)
        return [pair for pair in pairs if layers is None or any(layer in layers for layer in pair)]
