"""The sums that raw attributions are divided by at query time."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.decomposition.model import Capture
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums


def add_normalisers_(
    sums: Sums, topology: Topology, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]
) -> None:
    """Add one batch's normalisers: causal importances, squared activations and logits, token counts.

    Args:
        sums: Changed in place.
        topology: Squared activations are summed for its targets only.
        capture: What the component forward left.
        ci: Layer to causal importances, from the target forward.
    """
    dtype = sums.logit_sq.dtype
    for layer, values in ci.items():
        sums.ci[layer] += values.sum((0, 1), dtype=dtype)
    for layer in topology.component_targets:
        _add_squares_(sums.act_sq[layer], capture.post[layer].detach())
    _add_squares_(sums.logit_sq, capture.logits)
    tokens = capture.tokens.reshape(-1)
    sums.token_count.index_add_(0, tokens, torch.ones_like(tokens))  # bincount would make the host wait
    sums.n_tokens.add_(capture.tokens.numel())
    if sums.attr_abs:
        sums.n_abs_tokens.add_(capture.tokens.numel())


def _add_squares_(sums: Float[Tensor, " width"], values: Float[Tensor, "batch seq width"]) -> None:
    """Add squares; on a CPU sequence by sequence, so that temporaries stay in its caches."""
    for rows in values.split(1 if values.device.type == "cpu" else len(values)):
        sums.add_(rows.to(sums.dtype).square().sum((0, 1)))
