"""The sums that raw attributions are divided by at query time."""

from collections.abc import Mapping

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
    sums.token_count.add_(capture.tokens.reshape(-1).bincount(minlength=topology.vocab_size))
    sums.n_tokens.add_(capture.tokens.numel())
    if sums.attr_abs:
        sums.n_abs_tokens.add_(capture.tokens.numel())


def _add_squares_(sums: Float[Tensor, " width"], values: Float[Tensor, "batch seq width"]) -> None:
    """Add squares, sequence by sequence: temporaries stay in the caches of a CPU."""
    for row in values:
        sums.add_(row.to(sums.dtype).square().sum(0))
