from math import exp, log

import pytest
import torch

from lit_attr.decomposition.ci.sigmoid import SIGMOIDS, binomial_shift


def logistic(t: float) -> float:
    return 1 / (1 + exp(-t))


CLAMPED = [(-2.0, 0.0), (0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (3.0, 1.0)]
POINTS = {
    "normal": [(0.0, 0.5), (log(3), 0.75), (-log(3), 0.25), (-800.0, 0.0)],
    "hard": CLAMPED,
    "leaky_hard": CLAMPED,
    "upper_leaky_hard": [*CLAMPED[:-1], (3.0, 1.02), (101.0, 2.0)],
    # With s(t) the logistic function of 10 t, from the specification's formula by hand.
    "swish_hard": [
        (0.5, 0.5),
        (0.0, logistic(-10)),
        (1.0, logistic(10)),
        (-0.5, 1.5 * logistic(-15) - 0.5 * logistic(-5)),
        (1.5, 1 - 1.5 * logistic(-15) + 0.5 * logistic(-5)),
        (-90.0, 0.0),
        (90.0, 1.0),
    ],
}


@pytest.mark.parametrize(("name", "x", "value"), [(name, x, y) for name, points in POINTS.items() for x, y in points])
def test_value_is_that_computed_by_hand(name: str, x: float, value: float):
    assert SIGMOIDS[name](torch.tensor([x], dtype=torch.float64)).item() == pytest.approx(value, abs=1e-14)


def test_sigmoids_are_those_of_the_specification():
    assert SIGMOIDS.keys() == POINTS.keys()


def test_swish_hard_leaves_the_unit_interval_by_as_much_as_the_specification_says():
    values = SIGMOIDS["swish_hard"](torch.linspace(-2, 3, 5001, dtype=torch.float64))
    assert values.min().item() == pytest.approx(-0.028, abs=5e-4)
    assert values.max().item() == pytest.approx(1.028, abs=5e-4)


@pytest.mark.parametrize(
    ("x", "uniform", "shifted"), [(2.0, 0.0, 2.1), (2.0, 1.0, 2.05), (-1.0, 0.5, -1.075), (0.0, 0.4, -0.02)]
)
def test_binomial_shift_is_that_computed_by_hand(x: float, uniform: float, shifted: float):
    values = binomial_shift(*torch.tensor([[x], [uniform]], dtype=torch.float64))
    assert values.item() == pytest.approx(shifted, abs=1e-15)
