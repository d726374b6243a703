"""Intervals around values: how wide they are, which end is nearer to zero, how many standard errors a value has.

Their widths are quantiles of Student's t distribution with one degree of freedom less than there are effective groups.
Where nothing is said of a spread (standard errors are not a number), there is no interval either.
"""

import math
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.storage.student_t import log_density, tail

# The share of intervals that hold what they are of.
LEVEL = 0.95
_LEAST_DF = 2.0
# Newton's method in log-log coordinates, where tails are nearly straight: it takes 2 to 4 steps.
_MOST_STEPS = 12
_PRECISION = 1e-7  # of a step: the next one is as large as the square of it


def t_quantile(df: Float[Tensor, "*axes"], level: float = LEVEL) -> Float[Tensor, "*axes"]:
    """Half the width of an interval in standard errors, by degrees of freedom, which need not be whole numbers.

    Newton's method finds where the tails of the distribution have what the level leaves. It starts from the expansion
    around the normal quantile, 26.7.5 in Abramowitz and Stegun, Handbook of Mathematical Functions. How many steps are
    taken, and the last bits of logarithms, depend on how many quantiles are asked for at once. Rounding to single
    precision makes answers to the same question the same, however it is put.

    Args:
        df: Degrees of freedom; below 2 the result is not a number.
        level: The share of intervals that hold what they are of, above 0 and below 1.

    Returns:
        Quantiles, float64, with the precision of float32.
    """
    has_any = df >= _LEAST_DF
    n = torch.where(has_any, df, _LEAST_DF).double()
    x = NormalDist().inv_cdf((1 + level) / 2)
    t = x + (x**3 + x) / (4 * n) + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * n.square())
    for _ in range(_MOST_STEPS):
        outside = tail(t, n)
        step = (outside.log() - math.log1p(-level)) * outside / (2 * log_density(t, n).exp() * t)
        t = t * step.exp()
        if bool((step.abs() <= _PRECISION).all()):
            break
    return torch.where(has_any, t.float().double(), torch.nan)


def half_width(
    standard_errors: Float[Tensor, "*axes"], n_groups: Float[Tensor, "..."], level: float = LEVEL
) -> Float[Tensor, "*axes"]:
    """How far intervals reach to either side of their values, float64.

    Args:
        standard_errors: Standard errors of values; not a number where nothing is said of a spread.
        n_groups: Effective numbers of groups behind them, or behind each column.
        level: The share of intervals that hold what they are of.
    """
    return t_quantile(n_groups - 1, level) * standard_errors.double()


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
