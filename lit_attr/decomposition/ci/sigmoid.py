"""Sigmoids, from pre-sigmoid values to causal importance: the *lower* forms, which attributions use.

All formulas are those of goodfire-ai/spd. Its `leaky_hard` is leaky in its gradient only; its value is the clamp.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Sigmoid = Callable[[Float[Tensor, "*axes"]], Float[Tensor, "*axes"]]

_LEAK = 0.01
_SWISH_BETA = 10.0
_SWISH_SHIFT = 0.5
# With binomial sampling the pre-sigmoid x becomes (1 + w) x - w u, where u is uniform in [0, 1).
_BINOMIAL_WEIGHT = 0.05


def _hard(x: Tensor) -> Tensor:
    return x.clamp(0, 1)


def _upper_leaky_hard(x: Tensor) -> Tensor:
    return torch.where(x > 1, 1 + _LEAK * (x - 1), _hard(x))


def _swish_hard(x: Tensor) -> Tensor:
    def up(t: Tensor) -> Tensor:
        return t * torch.sigmoid(_SWISH_BETA * t)

    def down(t: Tensor) -> Tensor:
        return t * torch.sigmoid(-_SWISH_BETA * t)

    x = x - _SWISH_SHIFT
    return 0.5 + down(x - _SWISH_SHIFT) - up(x) + up(x + _SWISH_SHIFT) - down(x)


SIGMOIDS: dict[str, Sigmoid] = {
    "normal": torch.sigmoid,
    "hard": _hard,
    "leaky_hard": _hard,
    "upper_leaky_hard": _upper_leaky_hard,
    "swish_hard": _swish_hard,
}


def binomial_shift(x: Float[Tensor, "*axes"], uniform: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """The pre-sigmoid causal importance under binomial sampling.

    Args:
        x: Pre-sigmoid causal importance.
        uniform: Independent draws from [0, 1).
    """
    return (1 + _BINOMIAL_WEIGHT) * x - _BINOMIAL_WEIGHT * uniform
