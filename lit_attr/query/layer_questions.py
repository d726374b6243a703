"""Questions about pairs of layers."""

from collections.abc import Sequence
from typing import get_args

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.query.answers import Edge, StrongestEdges
from lit_attr.query.layer_answers import LayerBlock, LayerMatrix, Statistic
from lit_attr.query.lists import layer_pairs
from lit_attr.query.opened import Opened
from lit_attr.storage.strongest import NOT_FINITE
from lit_attr.topology.address import OUTPUT, ComponentKey, in_order
from lit_attr.topology.choice import Measure, Selection
from lit_attr.topology.words import AnySign, AttrMetric

# Edges of a block that is computed: 400 MB.
_LARGEST_BLOCK = 10**8


class LayerQuestions:
    """Questions about pairs of layers.

    Args:
        opened: The stored harvest.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._blocks = opened.query.blocks

    def matrix(
        self,
        statistic: Statistic = "mass",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
    ) -> LayerMatrix:
        """How much the layers influence each other.

        Args:
            statistic: `mass`, the sum of the absolute values of all edges between two layers, or `mean`, that sum
                divided by the number of edges.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of sources and targets.
            layers: Pairs are shown that have one of these at either end; all if none are given.

        Raises:
            ConfigurationError: If an option is not understood.
        """
        if statistic not in get_args(Statistic):
            raise ConfigurationError(f"statistic must be one of {list(get_args(Statistic))}, found {statistic!r}")
        blocks, values, measure = self._blocks, {}, Measure(metric, normalized)
        for source, target in (pairs := self._layer_pairs(metric, layers)):
            mass = self._opened.pairs.mass((source, target), measure)
            n_edges = blocks.size(source) * blocks.size(target)
            values[source, target] = mass if statistic == "mass" else mass / max(n_edges, 1)
        sources, targets = (in_order({pair[end] for pair in pairs}) for end in (0, 1))
        rows = tuple(tuple(values.get((source, target)) for source in sources) for target in targets)
        return LayerMatrix(metric, statistic, normalized, sources, targets, rows)

    def block(
        self, source_layer: str, target_layer: str, metric: AttrMetric = "attr", normalized: bool = True
    ) -> LayerBlock:
        """All edges between two layers.

        Args:
            source_layer: What feeds.
            target_layer: What is fed.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of sources and targets.

        Raises:
            EdgeNotFoundError: If there are no such edges.
            ConfigurationError: If there are too many to be computed at once.
            StorageError: If a value is not finite.
        """
        blocks = self._blocks
        source, target = self._opened.pair(source_layer, target_layer, metric)
        n_edges = blocks.size(source) * blocks.size(target)
        if n_edges > _LARGEST_BLOCK and (normalized or target == OUTPUT):
            raise ConfigurationError(
                f"the block from {source} to {target} has {n_edges:,} edges, and at most {_LARGEST_BLOCK:,} are "
                "computed at once: ask for single keys, or for the raw block of a layer of components"
            )
        values = blocks.tile(source, target, Measure(metric, normalized))
        if not values.isfinite().all():
            raise StorageError(f"{source} to {target}: {NOT_FINITE}")
        sources, targets = (
            tuple(self._opened.node(ComponentKey(layer, index)) for index in range(blocks.size(layer)))
            for layer in (source, target)
        )
        return LayerBlock(sources, targets, metric, normalized, values.numpy())

    def edges(
        self,
        k: int = 5,
        sign: AnySign = "both",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
    ) -> StrongestEdges:
        """The strongest edges of each pair of layers.

        Args:
            k: How many of each pair at most.
            sign: As for `sources`.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of source and target.
            layers: As for `matrix`.

        Raises:
            ConfigurationError: If an option is not understood.
        """
        node, measure, selection = self._opened.node, Measure(metric, normalized), Selection(k, sign)
        edges = [
            Edge(node(source), node(target), value)
            for pair in self._layer_pairs(metric, layers)
            for source, target, value in self._opened.pairs.edges(pair, measure, selection)
        ]
        return StrongestEdges(metric, sign, normalized, tuple(edges))

    def _layer_pairs(self, metric: AttrMetric, layers: Sequence[str]) -> list[tuple[str, str]]:
        wanted = self._opened.reader.matching(layers)
        pairs = layer_pairs(self._blocks, metric)
        return [pair for pair in pairs if wanted is None or not wanted.isdisjoint(pair)]
