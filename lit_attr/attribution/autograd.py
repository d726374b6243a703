"""Attributions by their definition: one gradient for each target component and metric.

With y_t[p] the activation of target component t at position p, a_s[p] that of source component s and c_s[p] its causal
importance, over all positions of a batch:

    attr[t, s]     = sum_p' c_s[p'] a_s[p'] d(sum_p  y_t[p]) / d a_s[p']
    attr_abs[t, s] = sum_p' c_s[p'] a_s[p'] d(sum_p |y_t[p]|) / d a_s[p']

An embedding source is a token id: the gradient at each of its positions times the embedding, without causal importance.
The output's targets are the dimensions of the residual stream that the unembedding reads; they have no `attr_abs`. The
definition is that of goodfire-ai/spd's dataset attributions.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_attr.attribution.edge_sums import EdgeSums
from lit_attr.decomposition.model import Capture
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import AttrMetric


class AutogradEngine:
    """Attributions gradient by gradient, on any architecture; the reference for everything faster.

    Args:
        topology: The attribution graph.
        alive: Layer to the components that are targets; rows of others stay zero. Under `output` the dimensions of the
            residual stream that are targets; all of them where it is missing.
        targets_per_pass: Gradients taken in one batched backward pass; memory grows with it. 1 takes them singly, which
            needs no batching rules of the model's operations.
    """

    needs_graph = True
    reserved_bytes = 0

    def __init__(
        self, topology: Topology, alive: Mapping[str, Bool[Tensor, " component"]], targets_per_pass: int
    ) -> None:
        self.topology = topology
        self.alive = alive
        self.targets_per_pass = targets_per_pass

    def truncated(self) -> "AutogradEngine":
        """An engine that takes one pass for each target layer: enough to see how much memory a pass needs."""
        masks = {OUTPUT: torch.ones(self.topology.d_model, dtype=torch.bool), **self.alive}
        first = {layer: mask & (mask.cumsum(0) <= self.targets_per_pass) for layer, mask in masks.items()}
        return AutogradEngine(self.topology, first, self.targets_per_pass)

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch; see `Engine.add_`."""
        batch = _Batch(capture, ci, self.topology, sums.logit_sq.dtype)
        for target, sources in self.topology.sources.items():
            values: dict[AttrMetric, Tensor]
            if target == OUTPUT:
                values = {"attr": capture.residual}
            else:
                values = {"attr": capture.pre[target], "attr_abs": capture.pre[target].abs()}
            mask = self.alive.get(target, torch.ones(values["attr"].shape[-1], dtype=torch.bool))
            indices = mask.nonzero()[:, 0].to(capture.residual.device)
            for metric, value in values.items():
                total = value.sum((0, 1))
                for start in range(0, len(indices), self.targets_per_pass):
                    chunk = indices[start : start + self.targets_per_pass]
                    _add_pass_(sums, batch, target, sources, metric, total, chunk)


class _Batch:
    """What all passes over one batch share."""

    def __init__(self, capture: Capture, ci: Mapping[str, Tensor], topology: Topology, dtype: torch.dtype) -> None:
        self.leaves = {EMBED: capture.embed, **capture.post}
        # What a gradient is multiplied with. The embedding has no causal importance.
        self.weights = {layer: capture.post[layer].detach().to(dtype) * ci[layer].to(dtype) for layer in capture.post}
        self.weights[EMBED] = capture.embed.detach().to(dtype)
        self.token_ids, inverse = capture.tokens.reshape(-1).unique(return_inverse=True)
        self.token_slot = inverse


def _add_pass_(
    sums: Sums,
    batch: _Batch,
    target: str,
    sources: tuple[str, ...],
    metric: AttrMetric,
    total: Float[Tensor, " target"],
    chosen: Int[Tensor, " chosen"],
) -> None:
    gradients = _gradients(total, [batch.leaves[source] for source in sources], chosen)
    for source, gradient in zip(sources, gradients, strict=True):
        weight = batch.weights[source]
        gradient = gradient.to(weight.dtype)
        if source == EMBED:
            at_position = gradient.mul(weight).sum(-1).flatten(1).T
            # A frequent token is thousands of terms added one by one.
            by_token = at_position.new_zeros(len(batch.token_ids), len(chosen), dtype=torch.float64)
            by_token.index_add_(0, batch.token_slot, at_position.double())
            into = EdgeSums(sums.edge(source, target)[metric], batch.token_ids, chosen)
            into.add_(by_token)
        else:
            into = EdgeSums(sums.edge(source, target)[metric], None, chosen)
            into.add_(gradient.mul(weight).sum((1, 2)).T)


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
