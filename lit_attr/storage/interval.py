"""Intervals around values: how wide they are, which end is nearer to zero, how many standard errors a value has.

Their widths are quantiles of Student's t distribution with one degree of freedom less than there are effective groups.
Where nothing is said of a spread (standard errors are not a number), there is no interval either.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# The share of intervals that hold what they are of, and the normal quantile of their upper end.
LEVEL = 0.95
_NORMAL = 1.959963984540054
_LEAST_DF = 2.0
_NODES, _WEIGHTS = map(torch.from_numpy, np.polynomial.legendre.leggauss(32))
_N_STEPS = 6


def t_quantile(df: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Half the width of a 95 % interval in standard errors, by degrees of freedom, which need not be whole numbers.

    Newton's method finds where the density, integrated from 0 by Gauss and Legendre's rule, reaches half the level. It
    starts from the expansion around the normal quantile, 26.7.5 in Abramowitz and Stegun, Handbook of Mathematical
    Functions.

    Args:
        df: Degrees of freedom; below 2 the result is not a number.

    Returns:
        Quantiles, float64.
    """
    n = torch.where(df >= _LEAST_DF, df, torch.nan).double()
    x = _NORMAL
    t = x + (x**3 + x) / (4 * n) + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * n.square())
    scale = (torch.lgamma((n + 1) / 2) - torch.lgamma(n / 2)).exp() / (n * math.pi).sqrt()

    def density(at: Float[Tensor, "..."], n: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return torch.exp(torch.log1p(at.square() / n) * (-(n + 1) / 2))

    for _ in range(_N_STEPS):
        nodes = t[..., None] * (_NODES + 1) / 2
        integral = (density(nodes, n[..., None]) * _WEIGHTS).sum(-1) * t / 2
        t = t - (integral - LEVEL / 2 / scale) / density(t, n)
    return t


def half_width(standard_errors: Float[Tensor, "*axes"], n_groups: Float[Tensor, "..."]) -> Float[Tensor, "*axes"]:
    """How far intervals reach to either side of their values, float64.

    Args:
        standard_errors: Standard errors of values; not a number where nothing is said of a spread.
        n_groups: Effective numbers of groups behind them, or behind each column.
    """
    return t_quantile(n_groups - 1) * standard_errors.double()


def nearer_end(
    values: Float[Tensor, "*axes"], standard_errors: Float[Tensor, "*axes"], n_groups: Float[Tensor, "..."]
) -> Float[Tensor, "*axes"]:
    """The ends of intervals that are nearer to zero; 0 where zero is in them, or there are none.

    Args:
        values: Attributions.
        standard_errors: Standard errors of these.
        n_groups: Effective numbers of groups behind them, or behind each column.
    """
    distance = (values.double().abs() - half_width(standard_errors, n_groups)).nan_to_num(nan=0.0).clamp(min=0)
    return (distance * values.sign()).to(values.dtype)


def z_scores(values: Float[Tensor, "*axes"], standard_errors: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """How many standard errors values are away from zero; 0 where nothing is said of a spread."""
    return (values.abs() / standard_errors).nan_to_num(nan=0.0, posinf=torch.inf)
