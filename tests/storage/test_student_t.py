"""The tail of Student's t: against tables, closed forms, and sums over its density."""

import math

import pytest
import torch

from lit_attr.storage.student_t import tail


def of(t, df):
    return tail(torch.tensor([t], dtype=torch.float64), torch.tensor([df], dtype=torch.float64)).item()


# Two-sided 5 %, 1 % and 0.1 % quantiles as printed in tables.
TABLE = {
    1: (12.706205, 63.656741, 636.619249),
    2: (4.302653, 9.924843, 31.599055),
    5: (2.570582, 4.032143, 6.868827),
    10: (2.228139, 3.169273, 4.586894),
    30: (2.042272, 2.749996, 3.645959),
    120: (1.979930, 2.617421, 3.373454),
}


@pytest.mark.parametrize("df", TABLE)
def test_tables(df):
    for quantile, p in zip(TABLE[df], (0.05, 0.01, 0.001), strict=True):
        assert of(quantile, df) == pytest.approx(p, rel=1e-5)
        assert of(-quantile, df) == of(quantile, df)


@pytest.mark.parametrize("t", [1e-9, 0.3, 1.0, 2.5, 17.0, 1e4, 1e8])
def test_closed_forms(t):
    assert of(t, 1) == pytest.approx(2 / math.pi * math.atan(1 / t), rel=1e-12)
    # 1 - t / sqrt(2 + t^2) without its cancellation
    root = math.sqrt(2 + t * t)
    assert of(t, 2) == pytest.approx(2 / (root * (root + t)), rel=1e-12)


@pytest.mark.parametrize(("t", "df"), [(0.7, 2.6), (2.0, 3.4), (3.3, 15.7), (5.0, 61.2), (1.1, 1000.5)])
def test_degrees_of_freedom_that_are_not_whole(t, df):
    """The integral of the density outside, by its substitution x = t / u, over a fine grid."""
    n = 200_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    constant = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    density = constant * (1 + (t / u).square() / df) ** (-(df + 1) / 2)
    assert of(t, df) == pytest.approx(2 * float((density * t / u.square()).mean()), rel=1e-8)


def test_extremes():
    assert of(0.0, 7.5) == 1
    assert 0 <= of(1e100, 60.0) < 1e-300
    assert of(1.959963985, 1e6) == pytest.approx(0.05, rel=1e-5)
    t, df = torch.rand(2, 3, 4, dtype=torch.float64) * 5 + 0.5
    assert tail(t, df).flatten().tolist() == pytest.approx(
        [of(*one) for one in zip(t.flatten(), df.flatten(), strict=True)], rel=1e-14
    )
