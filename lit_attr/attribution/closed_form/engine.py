"""The closed-form engine: input by input, over as many sequences as the workspace holds."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.edge_blocks import EdgeBlock
from lit_attr.attribution.closed_form.rows import Batch, Rows, TargetColumns
from lit_attr.attribution.closed_form.sizes import Widths, rows_and_targets
from lit_attr.attribution.closed_form.workspace import Workspace, evenly
from lit_attr.attribution.engine import CombinedEngine
from lit_attr.decomposition.anatomy import Attention
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums


class ClosedFormEngine:
    """Attributions by matrix products.

    The host waits for the device twice in a batch: for the numbers of pairs, and for the tokens.

    Args:
        model: Decomposed model, on its device already.
        layout: The sums that are asked for.
        edges: The edge blocks to compute.
        workspace_bytes: The most that temporaries may take at once.
    """

    needs_graph = False

    def __init__(
        self,
        model: DecomposedModel,
        layout: Layout,
        edges: Sequence[EdgeBlock],
        workspace_bytes: int,
    ) -> None:
        self.model = model
        self.layout = layout
        device = model.device
        self.workspace = Workspace(workspace_bytes, device)
        self.targets: dict[str, list[TargetColumns]] = {}
        self.edges: dict[str, list[EdgeBlock]] = {}
        for name in layout.asked_inputs:  # of the others no sums are kept
            readers, counts = self.layout.topology.readers[name], self.layout.topology.n_components
            ids = {target: layout.targets[target] for target in readers if target in layout.targets}
            targets = [_columns(target, some, counts[target], device) for target, some in ids.items()]
            self.targets[name] = [target for target in targets if target.count]
            # The edge blocks into one input are those into any of its readers.
            self.edges[name] = [edge for edge in edges if edge.target == readers[0]]
        self.edges = {name: into for name, into in self.edges.items() if into}

    @property
    def reserved_bytes(self) -> int:
        """Size of the workspace."""
        return self.workspace.nbytes

    def truncated(self) -> CombinedEngine:
        """An engine that adds nothing: all temporaries are in the workspace."""
        return CombinedEngine({})

    @torch.no_grad()
    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch; see `Engine.add_`."""
        sources = dict.fromkeys(edge.source for edges in self.edges.values() for edge in edges)
        batch = Batch.of(capture, ci, sources, sums)
        widths = self._widths(batch, sums)
        n_rows, n_targets = rows_and_targets(widths, self.workspace)
        n_stream_targets = self.workspace.in_cache(n_targets, widths.source * widths.itemsize)
        for piece in evenly(len(capture.tokens), n_rows):
            rows = Rows(self.model, batch, piece, sums, self.workspace, n_targets, n_stream_targets)
            for name, edges in self.edges.items():
                rows.add_(name, edges, self.targets[name])

    def _widths(self, batch: Batch, sums: Sums) -> Widths:
        through = [edge.through for edges in self.edges.values() for edge in edges]
        attentions = [sublayer for sublayer in through if isinstance(sublayer, Attention)]
        inputs = [self.layout.topology.widths[name] for name in self.edges]
        d_model = self.layout.topology.d_model
        targets = [sum(layer.count for layer in self.targets[name]) for name in self.edges if sums.attr_abs]
        return Widths(
            seq_len=batch.capture.tokens.shape[1],
            n_pairs=batch.counts.most + batch.capture.tokens.shape[1],
            source=max([batch.n_tokens, *map(len, batch.counts.components.values())]),
            target=max([1, *targets]),
            input=max(inputs, default=0),
            stream=max([d_model, *(attention.n_heads * attention.head_width for attention in attentions)]),
            heads=max((attention.n_heads for attention in attentions), default=0),
            itemsize=sums.logit_sq.dtype.itemsize,
        )


def _columns(layer: str, ids: Int[Tensor, " target"], n_all: int, device: torch.device) -> TargetColumns:
    return TargetColumns(layer, None if len(ids) == n_all else ids.to(device), len(ids))
