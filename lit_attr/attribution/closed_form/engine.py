"""The closed-form engine: edge block by edge block, over as many sequences as the workspace holds."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lit_attr.attribution.closed_form.edge_blocks import EdgeBlock
from lit_attr.attribution.closed_form.rows import Rows
from lit_attr.attribution.closed_form.sizes import Widths, rows_and_targets
from lit_attr.attribution.closed_form.workspace import Workspace, evenly
from lit_attr.attribution.engine import CombinedEngine
from lit_attr.decomposition.anatomy import Attention
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.topology.address import EMBED
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums


class ClosedFormEngine:
    """Attributions by matrix products.

    Args:
        model: Decomposed model, on its device already.
        topology: The attribution graph.
        alive: Layer to the components that are targets; rows of others stay zero.
        edges: The edge blocks to compute.
        workspace_bytes: The most that temporaries may take at once.
    """

    needs_graph = False

    def __init__(
        self,
        model: DecomposedModel,
        topology: Topology,
        alive: Mapping[str, Bool[Tensor, " component"]],
        edges: Sequence[EdgeBlock],
        workspace_bytes: int,
    ) -> None:
        self.model = model
        self.topology = topology
        self.edges: dict[str, list[EdgeBlock]] = {}
        for edge in edges:
            self.edges.setdefault(edge.source, []).append(edge)
        device = model.unembedding.device
        self.workspace = Workspace(workspace_bytes, device)
        self.columns = {layer: None if mask.all() else mask.nonzero()[:, 0].to(device) for layer, mask in alive.items()}

    @property
    def reserved_bytes(self) -> int:
        """Size of the workspace."""
        return self.workspace.nbytes

    def truncated(self) -> CombinedEngine:
        """An engine that adds nothing: all temporaries are in the workspace."""
        return CombinedEngine({})

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch; see `Engine.add_`."""
        with torch.no_grad():
            n_rows, n_targets = rows_and_targets(self._widths(capture, ci, sums.logit_sq.dtype), self.workspace)
            for piece in evenly(len(capture.tokens), n_rows):
                rows = Rows(self.model, capture, ci, piece, sums.logit_sq.dtype, self.workspace)
                for source, edges in self.edges.items():
                    rows.add_(sums, source, edges, self.columns, n_targets)

    def _widths(self, capture: Capture, ci: Mapping[str, Tensor], dtype: torch.dtype) -> Widths:
        edges = [edge for of_source in self.edges.values() for edge in of_source]
        batch, seq_len = capture.tokens.shape
        # One number for each layer, and one wait for the device.
        counts = [ci[layer].count_nonzero((1, 2)).amax() for layer in self.edges if layer != EMBED]
        n_pairs = int(torch.stack(counts).max()) if counts else 0
        n_components, d_model = self.topology.n_components, self.topology.d_model
        targets = {edge.target for edge in edges} & self.columns.keys()
        n_targets = [n_components[t] if (which := self.columns[t]) is None else len(which) for t in targets]
        attentions = [edge.through for edge in edges if isinstance(edge.through, Attention)]
        return Widths(
            seq_len=seq_len,
            n_pairs=max(n_pairs, seq_len),
            source=max(min(batch * seq_len, self.topology.vocab_size), *n_components.values()),
            target=max([d_model, *n_targets]),
            hidden=max(self.model.components(layer).V.shape[0] for layer in targets) if targets else 0,
            stream=max([d_model, *(attention.n_heads * attention.head_width for attention in attentions)]),
            heads=max((attention.n_heads for attention in attentions), default=0),
            itemsize=dtype.itemsize,
        )
