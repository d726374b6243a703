"""Attributions by their definition: gradients of what targets do, weighted by what sources do.

With y_t[p] the activation of target component t at position p, a_s[p] that of source component s and c_s[p] its causal
importance, over all positions of a batch:

    attr[t, s]     = sum_p' c_s[p'] a_s[p'] d(sum_p  y_t[p]) / d a_s[p']
    attr_abs[t, s] = sum_p' c_s[p'] a_s[p'] d(sum_p |y_t[p]|) / d a_s[p']

An embedding source is a token id: the gradient at each of its positions times the embedding, without causal importance.
The output's targets are the dimensions of the residual stream that the unembedding reads; they have no `attr_abs`. The
definition is that of goodfire-ai/spd's dataset attributions.

`attr` is linear in y_t = V_t . x, so that the gradients taken for it are those of the entries of the input x: one for
each of them, whatever the number of targets. `attr_abs` takes one for each target.
"""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.workspace import evenly
from lit_attr.attribution.edge_sums import add_at_, add_rows_
from lit_attr.attribution.engine import Whole
from lit_attr.attribution.occurring import occurring
from lit_attr.decomposition.model import Capture
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums
from lit_attr.topology.tables import Table


class AutogradEngine:
    """Attributions gradient by gradient, on any architecture; the reference for everything faster.

    Args:
        layout: The sums that are asked for; all edge blocks of its graph are computed.
        targets_per_pass: Gradients taken in one batched backward pass; memory grows with it. 1 takes them singly, which
            needs no batching rules of the model's operations.
        first_only: Whether to take only the first pass of each input and of each target layer.
    """

    needs_graph = True
    reserved_bytes = 0

    def __init__(
        self,
        layout: Layout,
        targets_per_pass: int,
        *,
        first_only: bool = False,
    ) -> None:
        self.layout = layout
        self.targets_per_pass = targets_per_pass
        self.first_only = first_only

    def truncated(self) -> "AutogradEngine":
        """An engine that takes one pass for each input and target layer: enough to see how much memory a pass needs."""
        return AutogradEngine(self.layout, self.targets_per_pass, first_only=True)

    def gather(self, sums: Sums) -> Whole:
        """The whole batch; see `Engine.gather`."""
        return Whole(self, sums)

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch; see `Engine.add_`."""
        topology = self.layout.topology
        batch = _Batch(capture, ci, sums, dict.fromkeys(s for sources in topology.sources.values() for s in sources))
        device = capture.residual.device
        for name in self.layout.inputs:
            x = capture.residual if name == OUTPUT else capture.inputs[name]
            entries = torch.arange(x.shape[-1], device=device)
            self._add_passes_(sums.attr[name], batch, topology.sources[topology.readers[name][0]], x, entries)
        for target, ids in self.layout.targets.items() if sums.attr_abs else ():
            magnitudes = capture.pre[target].abs()
            self._add_passes_(sums.attr_abs[target], batch, topology.sources[target], magnitudes, ids.to(device))

    def _add_passes_(
        self,
        tables: Mapping[str, Table],
        batch: "_Batch",
        sources: tuple[str, ...],
        values: Float[Tensor, "batch seq target"],
        indices: Int[Tensor, " chosen"],
    ) -> None:
        """Add what the sources do to the chosen entries of values, summed over positions; a column for each."""
        total = values.sum((0, 1))
        columns = list(evenly(len(indices), self.targets_per_pass))
        for some in columns[:1] if self.first_only else columns:
            _add_pass_(tables, batch, sources, total, indices[some], some)


class _Batch:
    """What all passes over one batch share."""

    def __init__(self, capture: Capture, ci: Mapping[str, Tensor], sums: Sums, sources: Iterable[str]) -> None:
        dtype = sums.logit_sq.dtype
        self.leaves = {EMBED: capture.embed, **capture.post}
        # What a gradient is multiplied with. The embedding has no causal importance.
        self.weights = {layer: capture.post[layer].detach().to(dtype) * ci[layer].to(dtype) for layer in capture.post}
        self.weights[EMBED] = capture.embed.detach().to(dtype)
        self.token_slot = capture.tokens.reshape(-1).unique(return_inverse=True)[1]
        present = occurring(sources, capture.tokens, ci)
        self.rows = sums.rows(present)
        self.present = {layer: torch.from_numpy(ids).to(capture.tokens.device) for layer, ids in present.items()}


def _add_pass_(
    tables: Mapping[str, Table],
    batch: _Batch,
    sources: tuple[str, ...],
    total: Float[Tensor, " target"],
    chosen: Int[Tensor, " chosen"],
    columns: slice,
) -> None:
    gradients = _gradients(total, [batch.leaves[source] for source in sources], chosen)
    for source, gradient in zip(sources, gradients, strict=True):
        weight = batch.weights[source]
        gradient = gradient.to(weight.dtype)
        table, rows, present = tables[source].numbers, batch.rows[source], batch.present[source]
        if source == EMBED:
            at_position = gradient.mul(weight).sum(-1).flatten(1).T
            # A frequent token is thousands of terms added one by one.
            by_token = at_position.new_zeros(len(present), len(chosen), dtype=torch.float64)
            add_rows_(by_token, batch.token_slot, at_position.double())
            add_at_(table, rows, columns, by_token)
        else:
            add_at_(table, rows, columns, gradient.mul(weight).sum((1, 2)).T[present])


def _gradients(
    total: Float[Tensor, " target"], leaves: list[Tensor], chosen: Int[Tensor, " chosen"]
) -> list[Float[Tensor, "chosen batch seq _"]]:
    """Gradients of the chosen entries of `total` with respect to all leaves."""
    if len(chosen) == 1:
        single = torch.autograd.grad(total[chosen[0]], leaves, retain_graph=True)
        return [gradient[None] for gradient in single]
    one_hot = total.new_zeros(len(chosen), len(total))
    one_hot.scatter_(1, chosen[:, None], 1.0)
    return list(torch.autograd.grad(total, leaves, one_hot, retain_graph=True, is_grads_batched=True))
