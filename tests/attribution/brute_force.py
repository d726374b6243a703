"""Attributions from per-position Jacobians, one number at a time: slow, and written without the engines' tricks."""

import torch

from lit_attr.attribution.connectivity import trace_topology
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.sums import Sums


def jacobian(value: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """d value[b, p, t] / d leaf[b, q, s] for every b, p, t, q, s: shape (batch, seq, target, seq, source)."""
    n_rows, seq_len, n_targets = value.shape
    result = torch.zeros(n_rows, seq_len, n_targets, *leaf.shape[1:], dtype=value.dtype)
    for row in range(n_rows):
        for position in range(seq_len):
            for target in range(n_targets):
                (gradient,) = torch.autograd.grad(value[row, position, target], leaf, retain_graph=True)
                assert not gradient[torch.arange(n_rows) != row].any()  # rows never mix
                result[row, position, target] = gradient[row]
    return result


def brute_force(model: DecomposedModel, tokens: torch.Tensor) -> Sums:
    """All four edge types, both metrics, all normalisers, over one batch."""
    topology = trace_topology(model)
    sums = Sums.zeros(topology, torch.float64)
    ci = model.causal_importance(tokens)
    capture = model.component_forward(tokens)
    for target, sources in topology.sources.items():
        value = capture.residual if target == OUTPUT else capture.pre[target]
        for source in sources:
            leaf = capture.embed if source == EMBED else capture.post[source]
            j = jacobian(value, leaf)
            _add(sums, tokens, ci, leaf.detach(), source, target, j.sum(1), "attr")
            if target != OUTPUT:
                j_abs = (value.detach().sign()[..., None, None] * j).sum(1)
                _add(sums, tokens, ci, leaf.detach(), source, target, j_abs, "attr_abs")
    for row in range(tokens.shape[0]):
        for position in range(tokens.shape[1]):
            sums.token_count[tokens[row, position]] += 1
            sums.n_tokens.add_(1)
            sums.logit_sq.add_(capture.logits[row, position] ** 2)
            for layer in topology.n_components:
                sums.ci[layer] += ci[layer][row, position]
                if layer in topology.sources:
                    sums.act_sq[layer] += capture.pre[layer][row, position].detach() ** 2
    return sums


def _add(sums, tokens, ci, activation, source, target, j, metric) -> None:
    for row in range(j.shape[0]):
        for q in range(j.shape[2]):
            effect = j[row, :, q] * activation[row, q]  # (target, source)
            if source == EMBED:
                table = {"attr": sums.embed, "attr_abs": sums.embed_abs}[metric].get(target, sums.embed_unembed)
                table[tokens[row, q]] += effect.sum(1)
                continue
            effect = effect * ci[source][row, q]
            if target == OUTPUT:
                sums.unembed[source] += effect
            else:
                {"attr": sums.regular, "attr_abs": sums.regular_abs}[metric][target][source] += effect
