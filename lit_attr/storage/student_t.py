"""Student's t distribution with any number of degrees of freedom, whole or not."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

# Steps of the continued fraction; it takes about the root of the degrees of freedom.
_MOST_STEPS = 100_000
_PRECISION = 1e-14
_TINY = 1e-300


def tail(t: Float64[Tensor, "*any"], df: Float64[Tensor, "*any"]) -> Float64[Tensor, "*any"]:
    """The probability of a value that is at least as far from zero, on either side.

    It is the regularised incomplete beta function of `df / (df + t^2)`, with parameters `df / 2` and 1/2.

    Args:
        t: Values, of magnitudes up to 1e150.
        df: Degrees of freedom, above 0.
    """
    squares = t.square()
    a, b = df / 2, torch.full_like(df, 0.5)
    x, rest = df / (df + squares), squares / (df + squares)
    log_beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    front = torch.exp(-a * torch.log1p(squares / df) + b * rest.log() - log_beta)
    # On its own side of the mean the fraction converges fast; beyond it, that of the other tail is taken.
    is_direct = x < (a + 1) / (a + b + 2)
    first, second = torch.where(is_direct, a, b), torch.where(is_direct, b, a)
    part = front * _fraction(first, second, torch.where(is_direct, x, rest)) / first
    return torch.where(is_direct, part, 1 - part).clamp(0, 1)


def log_density(t: Float64[Tensor, "*any"], df: Float64[Tensor, "*any"]) -> Float64[Tensor, "*any"]:
    """The logarithm of the density.

    Args:
        t: Values.
        df: Degrees of freedom, above 0.
    """
    scale = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - (df * math.pi).log() / 2
    return scale - (df + 1) / 2 * torch.log1p(t.square() / df)


def _fraction(
    a: Float64[Tensor, "*any"], b: Float64[Tensor, "*any"], x: Float64[Tensor, "*any"]
) -> Float64[Tensor, "*any"]:
    """The continued fraction of the incomplete beta function, by the method of Lentz."""
    c = torch.ones_like(x)
    d = _away_from_zero(1 - (a + b) * x / (a + 1)).reciprocal()
    value = d
    for step in range(1, _MOST_STEPS):
        even = step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step))
        odd = -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1))
        for term in (even, odd):
            d = _away_from_zero(1 + term * d).reciprocal()
            c = _away_from_zero(1 + term / c)
            value = value * (c * d)
        if bool(((c * d - 1).abs() <= _PRECISION).all()):
            break
    return value


def _away_from_zero(x: Float64[Tensor, "*any"]) -> Float64[Tensor, "*any"]:
    return torch.where(x.abs() < _TINY, _TINY, x)
