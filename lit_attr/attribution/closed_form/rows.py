"""Some sequences of a batch, and the sums of the edge blocks over them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.attention import add_keys_, add_queries_, add_values_
from lit_attr.attribution.closed_form.edge_blocks import EdgeBlock
from lit_attr.attribution.closed_form.heads import Heads
from lit_attr.attribution.closed_form.mlp import add_mlp_, slope
from lit_attr.attribution.closed_form.norm import Normalised
from lit_attr.attribution.closed_form.operands import SourceComponents, TargetComponents
from lit_attr.attribution.closed_form.pair_blocks import pair_blocks
from lit_attr.attribution.closed_form.stream import add_stream_, add_tokens_
from lit_attr.attribution.closed_form.weights import SparseWeights, cheaper, pairs_of
from lit_attr.attribution.closed_form.workspace import Workspace, evenly
from lit_attr.attribution.edge_sums import EdgeSums
from lit_attr.decomposition.anatomy import Attention, Mlp, Norm
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.sums import Sums


class Rows:
    """Some sequences of a captured batch, positions counting through all of them.

    Args:
        model: Decomposed model.
        capture: What the component forward left.
        ci: Layer to causal importances.
        rows: Which sequences of the batch.
        dtype: Floating-point type of the computation.
        workspace: Memory for temporaries.
    """

    def __init__(
        self,
        model: DecomposedModel,
        capture: Capture,
        ci: Mapping[str, Float[Tensor, "batch seq _"]],
        rows: slice,
        dtype: torch.dtype,
        workspace: Workspace,
    ) -> None:
        self.model = model
        self.capture = capture
        self.ci = ci
        self.rows = rows
        self.dtype = dtype
        self.workspace = workspace
        self._heads: tuple[Attention, Heads] | None = None

    def add_(
        self,
        sums: Sums,
        source_layer: str,
        edges: Sequence[EdgeBlock],
        columns: Mapping[str, Int[Tensor, " target"] | None],
        n_targets: int,
    ) -> None:
        """Add all edge blocks of one source layer.

        Args:
            sums: Changed in place.
            source_layer: Source layer, or `embed`.
            edges: Edge blocks of this source layer.
            columns: Layer to the components that are targets, None for all.
            n_targets: Most targets that are taken at once.
        """
        source, token_ids = self._source(source_layer)
        for edge in edges:
            for target in self._targets(sums, edge, token_ids, columns.get(edge.target), n_targets):
                self._add_edge_(edge, source, target)

    def _add_edge_(self, edge: EdgeBlock, source: SourceComponents, target: TargetComponents) -> None:
        through = edge.through
        if isinstance(through, Norm):
            stream = Normalised.of(through, self._flat(self.capture.stream[through.path]))
            if edge.source == EMBED:
                add_tokens_(self._flat(self.capture.embed), source.weights, target, stream)
            else:
                add_stream_(source, target, stream, self.workspace)
        elif isinstance(through, Mlp):
            inner = self.capture.inner
            gate = None if through.gate is None else self._flat(inner[through.gate])
            add_mlp_(source, target, slope(through, edge.source, self._flat(inner[through.up]), gate), self.workspace)
        else:
            heads = self._attention(through)
            projection = {"value": through.value, "query": through.query, "key": through.key}[edge.kind]
            source = replace(source, write=projection.of(source.write))
            if edge.kind == "value":
                add_values_(source, target, heads)
                return
            batch, _, seq_len, _ = heads.sizes
            blocks = pair_blocks(source.pairs, batch, seq_len)
            add = add_queries_ if edge.kind == "query" else add_keys_
            add(source, target, heads, blocks, self.workspace)

    def _flat(self, values: Float[Tensor, "batch seq width"]) -> Float[Tensor, "position width"]:
        return values.detach()[self.rows].flatten(0, 1).to(self.dtype)

    def _source(self, layer: str) -> tuple[SourceComponents, Int[Tensor, " token"] | None]:
        """A source layer; for the embedding, one source for each token that occurs, and which these are."""
        if layer == EMBED:
            tokens = self.capture.tokens[self.rows].flatten()
            token_ids, which = tokens.unique(return_inverse=True)
            rows = self._flat(self.capture.embed)
            write = rows.new_zeros(len(token_ids), rows.shape[1]).index_copy_(0, which, rows)
            position = which.argsort(stable=True)
            pairs = SparseWeights.of(position, which[position], rows.new_ones(len(tokens)), len(token_ids))
            return SourceComponents(write, pairs, pairs), token_ids
        weights = self._flat(self.capture.post[layer]) * self._flat(self.ci[layer])
        pairs = pairs_of(weights)
        write = self.model.components(layer).U.to(self.dtype)
        return SourceComponents(write, cheaper(weights, pairs), pairs), None

    def _targets(
        self,
        sums: Sums,
        edge: EdgeBlock,
        token_ids: Int[Tensor, " token"] | None,
        columns: Int[Tensor, " target"] | None,
        n_targets: int,
    ) -> Iterator[TargetComponents]:
        """The targets of an edge block, some at a time."""
        if edge.target == OUTPUT:
            y = self._flat(self.capture.residual)
            read = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
        else:
            y = self._flat(self.capture.pre[edge.target])
            read = self.model.components(edge.target).V.to(self.dtype)
        tables = sums.edge(edge.source, edge.target)
        for piece in evenly(y.shape[1] if columns is None else len(columns), n_targets):
            some = piece if columns is None else columns[piece]
            into = {metric: EdgeSums(table, token_ids, some) for metric, table in tables.items()}
            here = y[:, some].contiguous()
            sign = here.sign() if "attr_abs" in into else None
            yield TargetComponents(read[:, some], here, sign, into["attr"], into.get("attr_abs"))

    def _attention(self, attention: Attention) -> Heads:
        if self._heads is None or self._heads[0] is not attention:
            inner = self.capture.inner
            projections = (attention.query, attention.key, attention.value)
            parts = (p.of(inner[p.layer].detach()[self.rows]).to(self.dtype) for p in projections)
            self._heads = attention, Heads.of(attention, *parts)
        return self._heads[1]
