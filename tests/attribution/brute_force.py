"""Attributions from per-position Jacobians, one number at a time: slow, and written without the engines' tricks."""

import torch

from lit_attr.attribution.connectivity import trace_topology
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.topology.address import EMBED, OUTPUT
from tests.attribution.named import Named


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


def brute_force(model: DecomposedModel, tokens: torch.Tensor) -> Named:
    """All four edge types, both metrics, all normalisers, over one batch: target by target, as in a result."""
    topology = trace_topology(model)
    ci = model.causal_importance(tokens)
    capture = model.component_forward(tokens)
    named: Named = {}
    for target, sources in topology.sources.items():
        value = capture.residual if target == OUTPUT else capture.pre[target]
        for source in sources:
            leaf = capture.embed if source == EMBED else capture.post[source]
            j = jacobian(value, leaf)
            block = (topology.vocab_size, tokens, ci, leaf.detach(), source)
            named[f"attr/{source}->{target}"] = _block(*block, j.sum(1))
            if target != OUTPUT:
                j_abs = (value.detach().sign()[..., None, None] * j).sum(1)
                named[f"attr_abs/{source}->{target}"] = _block(*block, j_abs)
    for layer, count in topology.n_components.items():
        named[f"ci/{layer}"] = torch.zeros(count, dtype=torch.float64)
        named[f"act_sq/{layer}"] = torch.zeros(count, dtype=torch.float64)
    named["logit_sq"] = torch.zeros(topology.vocab_size, dtype=torch.float64)
    named["token_count"] = torch.zeros(topology.vocab_size, dtype=torch.int64)
    named["n_tokens"] = torch.zeros((), dtype=torch.int64)
    for row in range(tokens.shape[0]):
        for position in range(tokens.shape[1]):
            named["token_count"][tokens[row, position]] += 1
            named["n_tokens"] += 1
            named["logit_sq"] += capture.logits[row, position] ** 2
            for layer in topology.n_components:
                named[f"ci/{layer}"] += ci[layer][row, position]
                if layer in topology.sources:
                    named[f"act_sq/{layer}"] += capture.pre[layer][row, position].detach() ** 2
    return named


def _block(vocab_size, tokens, ci, activation, source, j) -> torch.Tensor:
    """The sums of an edge block, target by source, from a Jacobian that is summed over the target's positions."""
    n_sources = vocab_size if source == EMBED else activation.shape[-1]
    block = torch.zeros(j.shape[1], n_sources, dtype=torch.float64)
    for row in range(j.shape[0]):
        for q in range(j.shape[2]):
            effect = j[row, :, q] * activation[row, q]  # (target, source), or (target, d_model) for the embedding
            if source == EMBED:
                block[:, tokens[row, q]] += effect.sum(1)
            else:
                block += effect * ci[source][row, q]
    return block
