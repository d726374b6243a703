"""The benchmark of intervals, on few stories of the demo."""

import pytest

from benchmarks.coverage import Harvests, Tally, cover, measure
from lit_attr.harvest.datamodule import TokenDataModule


@pytest.mark.slow
def test_a_small_one():
    found = measure("demo", "demo", n_sets=4, n_batches=24, n_rows=4, n_null=1)["shares"]
    for kind in ("token to component attr", "token to component attr_abs"):
        assert 0.9 < found[f"{kind}, normalised"]["12 to 25"]["share"] < 1
        assert found[f"{kind}, null"]["12 to 25"]["share"] < 0.12


@pytest.mark.slow
def test_errors_that_are_too_small_are_noticed():
    data = TokenDataModule("demo", batch_size=4, n_batches=48)
    data.setup("predict")
    harvests, shares = Harvests("demo", data), []
    one, other = (harvests.blocks(harvests.of_batches(ids)) for ids in (range(24), range(24, 48)))
    for factor in (2**0.5, 0.3):
        cover(tally := Tally(), one, other, factor)
        shares.append(tally.table()["token to component attr, normalised"]["12 to 25"]["share"])
    assert shares[0] > 0.9 > 0.6 > shares[1]
