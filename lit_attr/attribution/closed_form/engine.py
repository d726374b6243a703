"""The closed-form engine: input by input, over as many sequences as the workspace holds."""

from collections.abc import Mapping, Sequence
from copy import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.batch import Batch, Count, Parts, TargetColumns, waiting_on
from lit_attr.attribution.closed_form.counts import PairCounts
from lit_attr.attribution.closed_form.edge_blocks import EdgeBlock
from lit_attr.attribution.closed_form.rows import Rows
from lit_attr.attribution.closed_form.sizes import Widths, rows_and_targets
from lit_attr.attribution.closed_form.workspace import Workspace, evenly
from lit_attr.decomposition.anatomy import Attention, Mlp, Norm
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
        blocks = [edge for into in self.edges.values() for edge in into]
        self.sources = dict.fromkeys(edge.source for edge in blocks)
        self.recorded = frozenset(name for edge in blocks for name in _recorded(edge.through))
        self.adds = True
        self.count: Count = PairCounts.of
        self.waiting = waiting_on(device)

    @property
    def reserved_bytes(self) -> int:
        """Size of the workspace; nothing where nothing is added."""
        return self.workspace.nbytes if self.adds else 0

    def truncated(self) -> "ClosedFormEngine":
        """An engine that takes what this one takes and adds nothing: all temporaries are in the workspace."""
        engine = copy(self)
        engine.adds = False
        return engine

    def expecting(self, count: Count, device: torch.device) -> "ClosedFormEngine":
        """A truncated engine that takes as much as this one would, of a batch without numbers.

        Args:
            count: Says how many pairs there are.
            device: Where this engine would be.
        """
        engine = self.truncated()
        engine.count, engine.waiting = count, waiting_on(device)
        return engine

    def gather(self, sums: Sums) -> "_Gathered":
        """Begin a batch; see `Engine.gather`."""
        return _Gathered(self, sums)

    @torch.no_grad()
    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch; see `Engine.add_`."""
        gathered = self.gather(sums)
        for layer, values in ci.items():
            gathered.parts.take_importances(layer, values)
        for layer, pre in capture.pre.items():
            gathered.parts.take_sources(layer, capture.post[layer])
            gathered.parts.take_targets(layer, pre)
        gathered.add_(capture)

    @torch.no_grad()
    def add_batch_(self, sums: Sums, batch: Batch) -> None:
        """Add the attributions of one batch.

        Args:
            sums: Changed in place.
            batch: What was taken of it.
        """
        counts, seq_len = batch.counts, batch.capture.tokens.shape[1]
        most = max([batch.n_tokens, *map(len, counts.components.values())])
        dtype = sums.logit_sq.dtype
        widths = self.widths(seq_len, counts.most, counts.most_of_a_layer, most, dtype, with_abs=bool(sums.attr_abs))
        n_rows, n_targets = rows_and_targets(widths, self.workspace)
        n_stream_targets = self.workspace.in_cache(n_targets, widths.source * widths.itemsize)
        for piece in evenly(len(batch.capture.tokens), n_rows):
            rows = Rows(self.model, batch, piece, sums, self.workspace, n_targets, n_stream_targets)
            for name, edges in self.edges.items():
                rows.add_(name, edges, self.targets[name])

    def widths(
        self, seq_len: int, n_pairs: int, n_layer_pairs: int, n_sources: int, dtype: torch.dtype, *, with_abs: bool
    ) -> Widths:
        """The largest sizes of a batch.

        Args:
            seq_len: Positions of a sequence.
            n_pairs: The most pairs of a sequence, over all layers together.
            n_layer_pairs: The most pairs of a layer in a sequence.
            n_sources: The most components of a source layer, or tokens, that occur.
            dtype: Floating-point type of the computation.
            with_abs: Whether `attr_abs` is computed.
        """
        through = [edge.through for edges in self.edges.values() for edge in edges]
        attentions = [sublayer for sublayer in through if isinstance(sublayer, Attention)]
        topology = self.layout.topology
        targets = [sum(layer.count for layer in self.targets[name]) for name in self.edges if with_abs]
        return Widths(
            seq_len=seq_len,
            n_pairs=n_pairs + seq_len,
            n_layer_pairs=max(n_layer_pairs, seq_len),
            source=n_sources,
            target=max([1, *targets]),
            input=max((topology.widths[name] for name in self.edges), default=0),
            stream=max([topology.d_model, *(attention.n_heads * attention.head_width for attention in attentions)]),
            heads=max((attention.n_heads for attention in attentions), default=0),
            itemsize=dtype.itemsize,
        )


class _Gathered:
    """What the closed forms take of a batch; see `Gathered`."""

    def __init__(self, engine: ClosedFormEngine, sums: Sums) -> None:
        self._engine = engine
        self._sums = sums
        self.recorded = engine.recorded
        targets = {target.layer: target for into in engine.targets.values() for target in into if sums.attr_abs}
        self.parts = Parts(engine.sources, targets, sums.logit_sq.dtype, engine.count, engine.waiting)
        self.take_importances = self.parts.take_importances
        self.take_activations = self.parts.take_activations

    def add_(self, capture: Capture) -> None:
        if self._engine.adds:
            self._engine.add_batch_(self._sums, self.parts.batch(capture, self._sums))


def _recorded(through: Norm | Mlp | Attention) -> tuple[str, ...]:
    """What a closed form reads of a capture: the stream before a norm, or what stays inside a sublayer."""
    return (through.path,) if isinstance(through, Norm) else through.readers


def _columns(layer: str, ids: Int[Tensor, " target"], n_all: int, device: torch.device) -> TargetColumns:
    return TargetColumns(layer, None if len(ids) == n_all else ids.to(device), len(ids))
