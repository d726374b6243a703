import numpy as np
import pytest

from lit_attr.errors import ConfigurationError
from lit_attr.topology.choice import Measure, Selection


@pytest.mark.parametrize("k", [0, -1, 2.5, 2.0, float("nan"), "3", None])
def test_k_is_a_whole_number_of_at_least_1(k):
    with pytest.raises(ConfigurationError, match=f"k must be a whole number of at least 1, found {k!r}"):
        Selection(k, "both")


@pytest.mark.parametrize("k", [1, 10**9, np.int64(3)])
def test_whole_numbers_are_taken(k):
    assert Selection(k, "positive").k == k


def test_unknown_words():
    with pytest.raises(ConfigurationError, match=r"sign must be one of \['positive', .*'both'\], found 'up'"):
        Selection(1, "up")
    for metric in ("x", None, ["attr"]):
        with pytest.raises(ConfigurationError, match=r"metric must be one of \['attr', 'attr_abs'\], found"):
            Measure(metric)


def test_signs_and_layers():
    assert Selection(1, "both").signs == ("positive", "negative")
    assert Selection(1, "negative").signs == ("negative",)
    assert Selection(1, "both").admits("0.mlp.up")
    chosen = Selection(1, "both", {"0.mlp.up"})
    assert chosen.admits("0.mlp.up")
    assert not chosen.admits("embed")
    assert Measure() == Measure("attr", normalized=True)
