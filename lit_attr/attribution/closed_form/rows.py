"""Some sequences of a batch, and the sums of the edge blocks over them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.attention import key_sums, query_sums, value_signed_effects, value_tangents
from lit_attr.attribution.closed_form.counts import PairCounts
from lit_attr.attribution.closed_form.edge_blocks import EdgeBlock
from lit_attr.attribution.closed_form.heads import Heads
from lit_attr.attribution.closed_form.mlp import mlp_signed_effects, mlp_tangents, slope
from lit_attr.attribution.closed_form.norm import Normalised
from lit_attr.attribution.closed_form.operands import ReaderLayer, Readers, SourceComponents
from lit_attr.attribution.closed_form.pair_blocks import PairTable
from lit_attr.attribution.closed_form.stream import StreamReaders, StreamSources
from lit_attr.attribution.closed_form.weights import DenseWeights, SparseWeights, is_dense, pairs_of
from lit_attr.attribution.closed_form.workspace import Workspace, evenly
from lit_attr.attribution.edge_sums import add_at_
from lit_attr.decomposition.anatomy import Attention, Mlp, Norm
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.topology.address import EMBED
from lit_attr.topology.sums import Sums

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class TargetColumns:
    """Components of a layer that are targets; each has a column of the sums of `attr_abs`.

    Attributes:
        layer: The layer.
        columns: Which of its components they are; None for all.
        count: How many they are.
    """

    layer: str
    columns: Int[Tensor, " target"] | None
    count: int


@dataclass(frozen=True)
class Batch:
    """What all sequences of a batch share.

    Attributes:
        capture: What the component forward left.
        ci: Layer to causal importances.
        counts: How many of these are not zero.
        components: Layer to the components that are not zero everywhere, ascending; None for all.
        rows: Source layer to the rows of its sources in the sums: of these components, of the tokens that occur; None
            for all rows.
        n_tokens: How many tokens occur.
        which: Which of them stands at each position.
        most_frequent: How often the most frequent token occurs.
    """

    capture: Capture
    ci: Mapping[str, Float[Tensor, "batch seq _"]]
    counts: PairCounts
    components: Mapping[str, Int[Tensor, " _component"] | None]
    rows: Mapping[str, Int[Tensor, " _source"] | None]
    n_tokens: int
    which: Int[Tensor, "batch seq"]
    most_frequent: int

    @classmethod
    def of(
        cls, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]], sources: Iterable[str], sums: Sums
    ) -> "Batch":
        """Look at a batch, and give its sources rows in the sums; the host waits for the device twice.

        Args:
            capture: What the component forward left.
            ci: Layer to causal importances.
            sources: Layers whose components, or token ids, are sources.
            sums: What the batch is to be added to.
        """
        layers = [source for source in sources if source != EMBED]
        counts = PairCounts.of(ci, layers)
        device = capture.tokens.device
        token_ids, which, occurrences = capture.tokens.cpu().unique(return_inverse=True, return_counts=True)
        tokens = {EMBED: token_ids.numpy()} if EMBED in sums.live else {}
        some = {layer: ids for layer, ids in counts.components.items() if len(ids) < ci[layer].shape[-1]}
        joined = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *some.values()])).to(device)
        components = dict(zip(some, joined.split([len(ids) for ids in some.values()]), strict=True))
        return cls(
            capture,
            ci,
            counts,
            {layer: components.get(layer) for layer in layers},
            sums.rows({**counts.components, **tokens}),
            len(token_ids),
            which.to(device),
            int(occurrences.numpy().max()),
        )


class Rows:
    """Some sequences of a captured batch, positions counting through all of them.

    Args:
        model: Decomposed model.
        batch: The batch.
        rows: Which sequences of it.
        sums: Changed in place; their floating-point type is that of the computation.
        workspace: Memory for temporaries.
        n_targets: Most targets that are taken at once.
        n_stream_targets: Most targets that are taken at once behind a norm, where nothing is computed twice for it.
    """

    def __init__(
        self,
        model: DecomposedModel,
        batch: Batch,
        rows: slice,
        sums: Sums,
        workspace: Workspace,
        n_targets: int,
        n_stream_targets: int,
    ) -> None:
        self.model = model
        self.batch = batch
        self.capture = batch.capture
        self.rows = rows
        self.sums = sums
        self.dtype = sums.logit_sq.dtype
        self.workspace = workspace
        self.n_targets = n_targets
        self.n_stream_targets = n_stream_targets
        self._known_sources: dict[str, SourceComponents] = {}

    def add_(self, name: str, edges: Sequence[EdgeBlock], targets: Sequence[TargetColumns]) -> None:
        """Add all edge blocks into one input.

        Args:
            name: Name of the input.
            edges: The edge blocks, of one target layer of those that read it.
            targets: The targets that have an `attr_abs`.
        """
        edges = [edge for edge in edges if self._occurs(edge.source)]
        if not edges:
            return
        through = edges[0].through
        if not self.sums.attr_abs:
            targets = []
        at_once = self.n_stream_targets if isinstance(through, Norm) else self.n_targets
        fits = sum(layer.count for layer in targets) <= self.n_targets
        readers = _repeatable(partial(self._readers, targets, at_once), keep=fits)
        if isinstance(through, Norm):
            self._add_stream_(name, edges, through, readers)
        elif isinstance(through, Mlp):
            self._add_mlp_(name, edges, through, readers)
        else:
            self._add_attention_(name, edges, through, readers if targets else [None])

    def _add_stream_(self, name: str, edges: Sequence[EdgeBlock], norm: Norm, readers: Iterable[Readers]) -> None:
        stream = Normalised.of(norm, self._flat(self.capture.stream[norm.path]))
        behind = _repeatable(
            lambda: (StreamReaders.of(some, stream) for some in readers), keep=isinstance(readers, list)
        )
        for edge in edges:
            source = self._source(edge.source)
            if edge.source == EMBED:
                # Where a stream is little more than the embedding, both terms of the derivative are large and nearly
                # equal: position by position they meet before anything else rounds.
                tangents = stream.jvp(self._flat(self.capture.embed))
                self._add_tangents_(name, EMBED, source.weights.total(tangents))
                for some in readers:
                    effects = (tangents @ some.read).mul_(some.sign)
                    self._add_effects_(EMBED, some, source.weights.total(effects))
            else:
                writing = StreamSources.of(source, stream, self.workspace)
                self._add_tangents_(name, edge.source, writing.tangents())
                for reading in behind:
                    self._add_effects_(edge.source, reading.readers, writing.signed_effects(reading))

    def _add_mlp_(self, name: str, edges: Sequence[EdgeBlock], mlp: Mlp, readers: Iterable[Readers]) -> None:
        up = self._flat(self.capture.inner[mlp.up])
        gate = None if mlp.gate is None else self._flat(self.capture.inner[mlp.gate])
        for edge in edges:
            source = self._source(edge.source)
            slopes = slope(mlp, edge.source, up, gate)
            self._add_tangents_(name, edge.source, mlp_tangents(source, slopes))
            for some in readers:
                self._add_effects_(edge.source, some, mlp_signed_effects(source, some, slopes, self.workspace))

    def _add_attention_(
        self, name: str, edges: Sequence[EdgeBlock], attention: Attention, readers: Iterable[Readers | None]
    ) -> None:
        inner = self.capture.inner
        projections = {"query": attention.query, "key": attention.key, "value": attention.value}
        query, key, value = (p.of(inner[p.layer].detach()[self.rows]).to(self.dtype) for p in projections.values())
        heads = Heads.of(attention, query, key, value, self.workspace.for_pattern)
        batch, _, seq_len, _ = heads.sizes
        for edge in edges:
            whole = self._source(edge.source)
            source = replace(whole, write=projections[edge.kind].of(whole.write))
            if edge.kind == "value":
                self._add_tangents_(name, edge.source, value_tangents(source, heads))
                for some in readers:
                    if some is not None:
                        self._add_effects_(edge.source, some, value_signed_effects(source, some, heads))
                continue
            add_up = query_sums if edge.kind == "query" else key_sums
            table = PairTable.of(source.pairs, batch, seq_len, self.batch.counts.sizes(edge.source, self.rows))
            for number, target in enumerate(readers):
                tangents, effects = add_up(source, target, heads, table, self.workspace)
                if number == 0:  # tangents do not depend on the readers
                    self._add_tangents_(name, edge.source, tangents)
                if target is not None:
                    self._add_effects_(edge.source, target, effects)

    def _add_tangents_(self, name: str, source: str, tangents: Float[Tensor, "source width"]) -> None:
        if name in self.sums.attr:
            add_at_(self.sums.attr[name][source].numbers, self.batch.rows[source], slice(None), tangents)

    def _add_effects_(self, source: str, readers: Readers, effects: Float[Tensor, "source target"]) -> None:
        tables = {layer.layer: self.sums.attr_abs[layer.layer][source].numbers for layer in readers.layers}
        readers.add_(tables, self.batch.rows[source], effects)

    def _occurs(self, source: str) -> bool:
        return source == EMBED or len(self.batch.counts.components[source]) > 0

    def _flat(self, values: Float[Tensor, "batch seq width"]) -> Float[Tensor, "position width"]:
        return values.detach()[self.rows].flatten(0, 1).to(self.dtype)

    def _source(self, layer: str) -> SourceComponents:
        """A source layer; for the embedding, one source for each token of the batch."""
        if layer not in self._known_sources:
            self._known_sources[layer] = self._tokens() if layer == EMBED else self._components(layer)
        return self._known_sources[layer]

    def _tokens(self) -> SourceComponents:
        which, n_tokens = self.batch.which[self.rows].flatten(), self.batch.n_tokens
        position = which.argsort(stable=True)
        ones = torch.ones(len(which), dtype=self.dtype, device=which.device)
        pairs = SparseWeights.of(position, which[position], ones, n_tokens, self.batch.most_frequent)
        return SourceComponents(ones.new_empty(n_tokens, 0), pairs, pairs)

    def _components(self, layer: str) -> SourceComponents:
        activations, ci = self._flat(self.capture.post[layer]), self._flat(self.batch.ci[layer])
        counts, components = self.batch.counts, self.batch.components[layer]
        n_pairs, longest = counts.total(layer, self.rows), counts.longest_sum(layer, self.rows)
        pairs = pairs_of(ci, activations, n_pairs, longest, components)
        some = slice(None) if components is None else components
        dense = is_dense(n_pairs, pairs.n_sources * len(ci), ci.device)
        weights = DenseWeights(ci[:, some] * activations[:, some]) if dense else pairs
        return SourceComponents(self.model.components(layer).U[some].to(self.dtype), weights, pairs)

    def _readers(self, targets: Sequence[TargetColumns], at_once: int) -> Iterator[Readers]:
        """The components that read an input, some at a time."""
        places = [(layer, column) for layer in targets for column in evenly(layer.count, at_once)]
        while places:
            layers: list[ReaderLayer] = []
            read, y, begin = [], [], 0
            while places and begin + places[0][1].stop - places[0][1].start <= at_once:
                target, piece = places.pop(0)
                columns = piece if target.columns is None else target.columns[piece]
                end = begin + piece.stop - piece.start
                layers.append(ReaderLayer(target.layer, slice(begin, end), piece))
                read.append(self.model.components(target.layer).V[:, columns].to(self.dtype))
                y.append(self._flat(self.capture.pre[target.layer])[:, columns])
                begin = end
            yield Readers(_side_by_side(read), _side_by_side(y), layers)


@dataclass(frozen=True)
class _Anew(Iterable[_Value]):
    """Values that are made anew each time they are gone through."""

    make: Callable[[], Iterator[_Value]]

    def __iter__(self) -> Iterator[_Value]:
        return self.make()


def _repeatable(make: Callable[[], Iterator[_Value]], *, keep: bool) -> Iterable[_Value]:
    """Values to be gone through several times: all of them at once where memory holds them, otherwise one by one."""
    return list(make()) if keep else _Anew(make)


def _side_by_side(columns: Sequence[Float[Tensor, "row _"]]) -> Float[Tensor, "row column"]:
    return columns[0] if len(columns) == 1 else torch.cat(list(columns), 1)
