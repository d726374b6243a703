"""Intervals against tables and the distribution function."""

import math

import pytest
import torch

from lit_attr.storage.interval import half_width, nearer_end, t_quantile, z_scores
from lit_attr.storage.student_t import tail

# 97.5 % quantiles as printed in tables.
TABLE = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 8: 2.306, 12: 2.179, 20: 2.086, 30: 2.042, 120: 1.980, 1000: 1.962}


def test_quantiles_are_those_of_tables():
    found = t_quantile(torch.tensor([float(df) for df in TABLE]))
    torch.testing.assert_close(found, torch.tensor([*TABLE.values()]).double(), rtol=0, atol=6e-4)


@pytest.mark.parametrize("df", [2.0, 2.3, 3.7, 9.9, 63.25, 1000.5])
def test_the_distribution_reaches_its_level_there(df):
    t = float(t_quantile(torch.tensor([df]))[0])
    at = torch.linspace(0, t, 200_001, dtype=torch.float64)
    log_scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    density = torch.exp(log_scale - (df + 1) / 2 * torch.log1p(at.square() / df))
    assert float(torch.trapezoid(density, at)) == pytest.approx(0.475, abs=1e-8)


@pytest.mark.parametrize("level", [0.5, 0.975, 1 - 0.05 / 64, 1 - 0.05 / 2**20])
def test_other_levels(level):
    df = torch.tensor([2.0, 3.7, 63.25, 1e5], dtype=torch.float64)
    t = t_quantile(df, level)
    assert bool((t == t.float()).all())
    one_rounding = 2.0**-24 * (1 + 1e-6)
    assert bool((tail(t * (1 - one_rounding), df) > 1 - level).all())
    assert bool((tail(t * (1 + one_rounding), df) < 1 - level).all())


def test_below_two_degrees_of_freedom_there_is_no_interval():
    errors, n_groups = torch.tensor([1.0, 1.0, math.nan]), torch.tensor([2.9, 3.0, 40.0])
    assert half_width(errors, n_groups).isnan().tolist() == [True, False, True]


def test_the_nearer_end_keeps_the_sign_and_stops_at_zero():
    values, errors = torch.tensor([5.0, -5.0, 1.0, 7.0]), torch.tensor([1.0, 1.0, 1.0, math.nan])
    ends = nearer_end(values, errors, torch.full((4,), 31.0))
    torch.testing.assert_close(ends, torch.tensor([5 - 2.0423, -5 + 2.0423, 0.0, 0.0]), rtol=0, atol=1e-4)
    assert z_scores(values, errors).tolist() == [5, 5, 1, 0]
    assert z_scores(values[:1], torch.zeros(1)).tolist() == [math.inf]


def test_a_quantile_is_the_same_however_many_are_asked_for():
    df = torch.linspace(2, 300, 1003).float()
    together = t_quantile(df)
    assert all(float(t_quantile(df[i : i + 1 + i % 9])[0]) == float(together[i]) for i in range(0, len(df), 7))
