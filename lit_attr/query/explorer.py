"""A result, opened for questions."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lit_attr.query.answers import EdgeAnswer, Node, Ranking, StrongestEdges, Subgraph
from lit_attr.query.index import Index
from lit_attr.query.key_questions import KeyQuestions
from lit_attr.query.keys import KeyReader
from lit_attr.query.layer_answers import LayerBlock, LayerMatrix
from lit_attr.query.layer_pairs import layer_pairs
from lit_attr.query.layer_questions import LayerQuestions
from lit_attr.query.opened_result import OpenedResult
from lit_attr.query.result_name import ResultName
from lit_attr.query.strongest_edges import Edges
from lit_attr.query.strongest_lists import StrongestLists
from lit_attr.query.subgraph import Reach
from lit_attr.query.token_texts import TokenTexts
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.harvested_targets import HarvestedTargets
from lit_attr.topology.address import OUTPUT, ComponentKey
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import AnySign, AttrMetric, EdgeOrder, Per, SortBy, Statistic, Ways


class Explorer:
    """A result, opened for questions. `AttributionRepo.explore` opens one.

    A key is `<layer>:<index>`; the layer may be a module path, the index of a token its text: `h.0.mlp.c_fc:5`,
    `output:" her"`. `layers` are names, or patterns such as `0.*` and `*.attn.o`.

    Edges to components that were no targets of the harvest were not measured, and are never answered as 0: answers say
    so in `was_harvested`, `n_not_harvested` and `harvested`. A metric that was not harvested is a mistake to ask for:
    `metrics` has those that were. Where `attr_abs` was harvested in a share of the sequences, answers have a `sample`.

    A file of strongest edges alone (`lit-attr export --to strongest`) answers the same as far as it goes. What was
    asked for and dropped is in `not_held`, an edge that is not there has `is_held` false, and a question that needs all
    edges ends in a `NotHeldError`.

    With an index beside the result (`lit-attr index`), questions about what a component or token feeds, about output
    tokens, and about pairs of layers are fast however large the result is. The answers are the same without it.

    Args:
        path: The result's file.
        tokenizer: A `tokenizer.json`; without it, the one that the result's provenance leads to.

    Raises:
        StorageError: If the file is missing or damaged.
        ConfigurationError: If there is no such tokenizer.
    """

    def __init__(self, path: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None) -> None:
        self._result = OpenedResult(Path(path), None if tokenizer is None else Path(tokenizer))
        self._key_questions = KeyQuestions(self._result)
        self._layer_questions = LayerQuestions(self._result)

    def sources(
        self,
        key: str,
        *,
        k: int = 10,
        sign: AnySign = "positive",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
        sort: SortBy = "value",
        min_z: float = 0.0,
        sure: bool = False,
    ) -> Ranking:
        """What feeds a component or an output token most.

        Args:
            key: The component or output token.
            k: How many at most.
            sign: `positive`, `negative`, or `both`, which ranks by magnitude.
            metric: `attr`, or `attr_abs` for effects on the activation's magnitude; output tokens have only `attr`.
            normalized: Divide by the scales of source and target; otherwise raw sums are ranked.
            layers: Layers to look at; all if none are given.
            sort: `value`, or `lower`, which ranks by the ends of 95 % intervals that are nearer to zero, and leaves out
                those with zero in them or without one. It looks at all edges of the key, without an index.
            min_z: Standard errors that values are away from zero at least; it looks at all edges, too.
            sure: Whether those are left out that have zero in their 95 % intervals, or no interval. Others are sought
                among the 4,096 strongest.

        Raises:
            EdgeNotFoundError: If nothing feeds the key.
            KeyFormatError: If the key is malformed.
            ConfigurationError: If an option is not understood, or the metric, or standard errors that an option needs,
                were not harvested.
        """
        selection = self._result.selection(k, sign, layers, sort, min_z, sure=sure)
        return self._key_questions.ranking("sources", key, Measure(metric, normalized), selection)

    def targets(
        self,
        key: str,
        *,
        k: int = 10,
        sign: AnySign = "positive",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
        sort: SortBy = "value",
        min_z: float = 0.0,
        sure: bool = False,
    ) -> Ranking:
        """What a component or a token feeds most; arguments and errors as for `sources`."""
        selection = self._result.selection(k, sign, layers, sort, min_z, sure=sure)
        return self._key_questions.ranking("targets", key, Measure(metric, normalized), selection)

    def edge(self, source: str, target: str, *, metric: AttrMetric = "attr") -> EdgeAnswer:
        """One edge, raw and normalised.

        Args:
            source: What feeds.
            target: What is fed.
            metric: `attr` or `attr_abs`.

        Raises:
            EdgeNotFoundError: If there is no such edge.
            KeyFormatError: If a key is malformed.
            ConfigurationError: If the metric is unknown, or was not harvested.
        """
        return self._key_questions.edge(source, target, metric)

    def subgraph(
        self,
        keys: Sequence[str],
        *,
        k: int = 3,
        depth: int = 2,
        threshold: float = 0.0,
        direction: Ways = "both",
        sign: AnySign = "both",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
        sure: bool = False,
    ) -> Subgraph:
        """The strongest edges that lead to some keys, and those that lead away from them.

        Args:
            keys: Where to begin.
            k: How many sources, or targets, of each node at most.
            depth: How many edges away from a key at most.
            threshold: Edges of smaller absolute values are left out.
            direction: `upstream` follows sources, `downstream` targets; `both` does each by itself.
            sign: `positive`, `negative`, or `both`, which ranks by magnitude.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of source and target.
            layers: Nodes beside the keys are of these; all if none are given.
            sure: Whether edges are left out that have zero in their 95 % intervals, or no interval, as for `sources`.

        Raises:
            EdgeNotFoundError: If nothing feeds a key, and it feeds nothing.
            KeyFormatError: If a key is malformed.
            ConfigurationError: If an option is not understood, or the metric was not harvested.
        """
        reach, selection = Reach(depth, threshold, direction), self._result.selection(k, sign, layers, sure=sure)
        return self._key_questions.subgraph(keys, reach, Measure(metric, normalized), selection)

    def matrix(
        self,
        *,
        statistic: Statistic = "mass",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
    ) -> LayerMatrix:
        """How much the layers influence each other.

        Args:
            statistic: `mass`, the sum of the absolute values of all measured edges between two layers, or `mean`, that
                sum divided by their number.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of sources and targets.
            layers: Pairs are shown that have one of these at either end; all if none are given.

        Raises:
            ConfigurationError: If an option is not understood, or the metric was not harvested.
        """
        return self._layer_questions.matrix(statistic, Measure(metric, normalized), layers)

    def block(
        self, source_layer: str, target_layer: str, *, metric: AttrMetric = "attr", normalized: bool = True
    ) -> LayerBlock:
        """All edges between two layers.

        Args:
            source_layer: What feeds.
            target_layer: What is fed.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of sources and targets.

        Raises:
            EdgeNotFoundError: If there are no such edges.
            ConfigurationError: If there are too many to be computed at once, or the metric was not harvested.
            NotHeldError: If the result holds its strongest edges alone.
            StorageError: If a value is not finite.
        """
        return self._layer_questions.block(source_layer, target_layer, Measure(metric, normalized))

    def edges(
        self,
        *,
        k: int = 5,
        by: EdgeOrder = "pair",
        sign: AnySign = "both",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        layers: Sequence[str] = (),
        sort: SortBy = "value",
        min_z: float = 0.0,
    ) -> StrongestEdges:
        """The strongest edges between layers.

        Args:
            k: How many at most.
            by: `pair` for the `k` strongest of each pair of layers, pair by pair; `strength` for the `k` strongest of
                all pairs.
            sign: `positive`, `negative`, or `both`, which ranks by magnitude.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of source and target.
            layers: Pairs take part that have one of these at either end; all if none are given.
            sort: `value` or `lower`, as for `sources`; `lower` looks at all edges between the layers.
            min_z: Standard errors that values are away from zero at least, likewise.

        Raises:
            ConfigurationError: If an option is not understood, or what it needs was not harvested.
        """
        selection = self._result.selection(k, sign, layers, sort, min_z)
        return self._layer_questions.edges(by, Measure(metric, normalized), selection)

    def pair_edges(
        self,
        source_layer: str,
        target_layer: str,
        *,
        k: int = 10,
        sign: AnySign = "both",
        metric: AttrMetric = "attr",
        normalized: bool = True,
        sure: bool = False,
    ) -> StrongestEdges:
        """The strongest edges between two layers.

        Args:
            source_layer: What feeds.
            target_layer: What is fed.
            k: How many at most.
            sign: `positive`, `negative`, or `both`, which ranks by magnitude.
            metric: `attr` or `attr_abs`.
            normalized: Divide by the scales of source and target.
            sure: Whether those are left out that have zero in their 95 % intervals, or no interval. Others are sought
                among the 4,096 strongest.

        Raises:
            EdgeNotFoundError: If there are no such edges.
            ConfigurationError: If an option is not understood, or the metric, or standard errors where only sure
                edges are asked for, were not harvested.
        """
        selection = self._result.selection(k, sign, (), sure=sure)
        return self._layer_questions.pair_edges(source_layer, target_layer, Measure(metric, normalized), selection)

    def strongest(self, per: Per, *, k: int, metric: AttrMetric = "attr") -> Iterator[Edges]:
        """The edges with the largest normalised magnitudes as arrays, some at a time, of a result of any size.

        Args:
            per: Whether `k` edges of each pair of layers are meant, or of each component and output token.
            k: How many.
            metric: `attr` or `attr_abs`.

        Raises:
            ConfigurationError: If an option is not understood, or the metric was not harvested.
            NotHeldError: If the result holds its strongest edges alone, and fewer than `k` of something that has more.
            StorageError: If a value is not finite.
        """
        return self._layer_questions.strongest(per, k, metric)

    @property
    def n_kept(self) -> int | None:
        """How many of the strongest edges each list has, where the result holds nothing else; None if it holds all."""
        return self._result.index.k if isinstance(self._result.index, StrongestLists) else None

    @property
    def path(self) -> Path:
        """The result's file."""
        return self._result.path

    @property
    def name(self) -> ResultName:
        """Which result this is: its file, run, harvest and checkpoint."""
        return ResultName.read(self.path, self.storage)

    @property
    def storage(self) -> DatasetAttributionStorage:
        """The result."""
        return self._result.storage

    @property
    def metrics(self) -> tuple[AttrMetric, ...]:
        """The metrics that were harvested."""
        return self.storage.metrics

    @property
    def layers(self) -> Mapping[str, int]:
        """All layers in the order of a forward pass, with their numbers of components, or of token ids."""
        return {layer: self.storage.layer_size(layer) for layer in self.reader.layers}

    def n_stored(self, source_layer: str, target_layer: str) -> int:
        """Number of edges between two layers that the file holds: in the compact form, fewer than there are.

        Args:
            source_layer: Canonical address of what feeds.
            target_layer: Canonical address of what is fed.
        """
        return self._result.blocks.n_stored(source_layer, target_layer)

    @property
    def reader(self) -> KeyReader:
        """Reads keys and names of layers."""
        return self._result.reader

    @property
    def tokens(self) -> TokenTexts | None:
        """The texts of tokens; None where no tokenizer was found."""
        return self._result.tokens

    @property
    def harvested(self) -> HarvestedTargets:
        """Which components were targets of the harvest."""
        return self._result.harvested

    @property
    def is_indexed(self) -> bool:
        """Whether answers come with the help of an index."""
        return self._result.index is not None

    def use_index(self, index: Index | None) -> None:
        """Answer from now on with an index, or without one."""
        self._result.use_index(index)

    def node(self, key: ComponentKey) -> Node:
        """A key with the text of its token, and whether it was a target of the harvest.

        Raises:
            DataError: If the tokenizer cannot be read.
        """
        return self._result.node(key)

    def token(self, layer: str, index: int) -> str | None:
        """The text of a token; None for components, and where no tokenizer was found.

        Args:
            layer: Canonical address.
            index: Component index, or token id.

        Raises:
            DataError: If the tokenizer cannot be read.
        """
        return self.node(ComponentKey(layer, index)).token

    def has_source(self, key: ComponentKey) -> bool:
        """Whether a key is a source of any edge."""
        return self._result.key_edges.has_source(key)

    def has_target(self, key: ComponentKey) -> bool:
        """Whether a key is a target of any edge, harvested or not."""
        return self._result.key_edges.has_target(key)

    def why_unknown(self, key: ComponentKey) -> str:
        """Why a key is neither a source nor a target of any edge, in words."""
        return self._result.key_edges.why_unknown(key, "target" if key.layer == OUTPUT else "source")

    def layer_pairs(self, *, metric: AttrMetric = "attr") -> list[tuple[str, str]]:
        """All pairs of source and target layer between which there are edges, to targets of the harvest or not.

        Args:
            metric: `attr` or `attr_abs`.

        Raises:
            ConfigurationError: If the metric is unknown, or was not harvested.
        """
        return layer_pairs(self._result.blocks, metric)

    def layer_pair(self, source: str, target: str, *, metric: AttrMetric = "attr") -> tuple[str, str]:
        """The canonical addresses of two layers between which there are edges.

        Args:
            source: Name or module path of what feeds.
            target: Name or module path of what is fed.
            metric: `attr` or `attr_abs`.

        Raises:
            EdgeNotFoundError: If there are no such edges.
            KeyFormatError: If a module path may be that of several layers.
            ConfigurationError: If the metric is unknown, or was not harvested.
        """
        return self._result.layer_pair(source, target, metric)
