"""The sums that raw attributions are divided by at query time."""

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.decomposition.model import Capture
from lit_attr.topology.sums import Sums

# Of the numbers whose squares are taken at once: 256 MiB in float32.
_NUMBERS_AT_ONCE = 1 << 26


def add_importances_(sums: Sums, layer: str, ci: Float[Tensor, "batch seq component"]) -> None:
    """Add the causal importances of a layer.

    Args:
        sums: Changed in place.
        layer: The layer.
        ci: Its causal importances, from the target forward.
    """
    sums.ci[layer] += ci.sum((0, 1), dtype=sums.logit_sq.dtype)


def add_activations_(sums: Sums, layer: str, activations: Float[Tensor, "batch seq component"]) -> None:
    """Add the squared activations of a target layer.

    Args:
        sums: Changed in place.
        layer: The layer.
        activations: Its component activations, from the component forward.
    """
    _add_squares_(sums.act_sq[layer], activations)


def add_ends_(sums: Sums, capture: Capture) -> None:
    """Add squared logits and token counts.

    Args:
        sums: Changed in place.
        capture: What the component forward left.
    """
    _add_squares_(sums.logit_sq, capture.logits)
    tokens = capture.tokens.reshape(-1)
    sums.token_count.index_add_(0, tokens, torch.ones_like(tokens))  # bincount would make the host wait
    sums.n_tokens.add_(capture.tokens.numel())
    if sums.attr_abs:
        sums.n_abs_tokens.add_(capture.tokens.numel())


def _add_squares_(sums: Float[Tensor, " width"], values: Float[Tensor, "batch seq width"]) -> None:
    """Add squares; on a CPU sequence by sequence, so that temporaries stay in its caches."""
    fitting = _NUMBERS_AT_ONCE // max(values[0].numel(), 1)
    for rows in values.split(1 if values.device.type == "cpu" else max(fitting, 1)):
        for piece in rows.split(max(_NUMBERS_AT_ONCE // rows[:, 0].numel(), 1), dim=1) if not fitting else [rows]:
            sums.add_(piece.to(sums.dtype).square().sum((0, 1)))
