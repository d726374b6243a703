"""Some sequences of a batch, and the sums of the edge blocks over them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.attribution.closed_form.attention import key_sums, query_sums, value_signed_effects, value_tangents
from lit_attr.attribution.closed_form.batch import Batch, TargetColumns
from lit_attr.attribution.closed_form.edge_blocks import EdgeBlock
from lit_attr.attribution.closed_form.heads import Heads
from lit_attr.attribution.closed_form.mlp import mlp_signed_effects, mlp_tangents, slope
from lit_attr.attribution.closed_form.norm import Normalised
from lit_attr.attribution.closed_form.operands import ReaderLayer, Readers, SourceComponents
from lit_attr.attribution.closed_form.pair_blocks import PairTable
from lit_attr.attribution.closed_form.stream import StreamReaders, StreamSources
from lit_attr.attribution.closed_form.weights import SparseWeights, Weights, is_dense
from lit_attr.attribution.closed_form.workspace import Workspace, evenly
from lit_attr.attribution.edge_sums import add_at_
from lit_attr.decomposition.anatomy import Attention, Mlp, Norm
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.topology.address import EMBED
from lit_attr.topology.sums import Sums

_Value = TypeVar("_Value")


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
        self._known_weights: dict[str, tuple[Weights, SparseWeights]] = {}

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
        if layer not in self._known_weights:
            self._known_weights[layer] = self._tokens() if layer == EMBED else self._components(layer)
        weights, pairs = self._known_weights[layer]
        # Write vectors of all layers would be more than the workspace holds.
        return SourceComponents(pairs.weight.new_empty(0, 0) if layer == EMBED else self._write(layer), weights, pairs)

    def _tokens(self) -> tuple[Weights, SparseWeights]:
        which, n_tokens = self.batch.which[self.rows].flatten(), self.batch.n_tokens
        position = which.argsort(stable=True)
        ones = torch.ones(len(which), dtype=self.dtype, device=which.device)
        pairs = SparseWeights.of(position, which[position], ones, n_tokens, self.batch.most_frequent)
        return pairs, pairs

    def _components(self, layer: str) -> tuple[Weights, SparseWeights]:
        pairs, n_positions = self.batch.weights(layer, self.rows), self.capture.tokens[self.rows].numel()
        dense = is_dense(len(pairs.weight), pairs.n_sources * n_positions, pairs.weight.device)
        return pairs.dense(n_positions) if dense else pairs, pairs

    def _write(self, layer: str) -> Float[Tensor, "source d_out"]:
        write, components = self.model.components(layer).U, self.batch.components[layer]
        return (write if components is None else write[components]).to(self.dtype)

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
                y.append(self._flat(self.batch.activations[target.layer])[:, piece])
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
