"""The closed-form engine: edge block by edge block, over as many sequences as the workspace holds."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lit_attr.attribution.closed_form.edges import Edge
from lit_attr.attribution.closed_form.rows import Rows
from lit_attr.attribution.closed_form.sizes import Widths, rows_and_targets
from lit_attr.attribution.closed_form.workspace import Workspace, evenly
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.storage.sums import Sums
from lit_attr.topology.address import EMBED
from lit_attr.topology.graph import Topology


class ClosedFormEngine:
    """Attributions by matrix products.

    Args:
        model: Whose components they are; on its device already.
        topology: The attribution graph.
        alive: Layer to the components that are targets; rows of others stay zero.
        edges: The edge blocks to compute.
        workspace_bytes: The most that temporaries may take at once.
    """

    def __init__(
        self,
        model: DecomposedModel,
        topology: Topology,
        alive: Mapping[str, Bool[Tensor, " component"]],
        edges: Sequence[Edge],
        workspace_bytes: int,
    ) -> None:
        self.model = model
        self.topology = topology
        self.edges: dict[str, list[Edge]] = {}
        for edge in edges:
            self.edges.setdefault(edge.source, []).append(edge)
        device = model.unembedding.device
        self.workspace = Workspace(workspace_bytes, device)
        self.chosen = {layer: None if mask.all() else mask.nonzero()[:, 0].to(device) for layer, mask in alive.items()}

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch.

        Args:
            sums: Changed in place.
            capture: Of the component forward; its graph is not needed.
            ci: Layer to causal importances.

        Raises:
            ConfigurationError: If the workspace does not hold one sequence.
        """
        with torch.no_grad():
            n_rows, n_targets = rows_and_targets(self._widths(capture, ci, sums.logit_sq.dtype), self.workspace)
            for piece in evenly(len(capture.tokens), n_rows):
                rows = Rows(self.model, capture, ci, piece, sums.logit_sq.dtype, self.workspace)
                for source, edges in self.edges.items():
                    rows.add_(sums, source, edges, self.chosen, n_targets)

    def _widths(self, capture: Capture, ci: Mapping[str, Tensor], dtype: torch.dtype) -> Widths:
        sources = [layer for layer in self.edges if layer != EMBED]
        batch, seq_len = capture.tokens.shape
        # One number for each layer, and one wait for the device.
        counts = [ci[layer].count_nonzero((1, 2)).amax() for layer in sources]
        n_pairs = int(torch.stack(counts).max()) if counts else 0
        counts_of = self.topology.n_components
        targets = {edge.target for edges in self.edges.values() for edge in edges}
        chosen = {layer: which for layer, which in self.chosen.items() if layer in targets}
        d_in = [self.model.components(layer).V.shape[0] for layer in chosen]
        return Widths(
            seq_len=seq_len,
            n_pairs=max(n_pairs, seq_len),
            source=max(min(batch * seq_len, self.topology.vocab_size), *(counts_of[layer] for layer in counts_of)),
            target=max(
                self.topology.d_model, *(counts_of[k] if which is None else len(which) for k, which in chosen.items())
            ),
            hidden=max(d_in, default=0),
            stream=self.topology.d_model,
            itemsize=dtype.itemsize,
        )
