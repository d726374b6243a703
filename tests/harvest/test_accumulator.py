import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from lit_attr.errors import ConfigurationError, NumericalError
from lit_attr.harvest import accumulator as module
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.harvest.memory import PeakMemory
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import CHUNK
from tests.storage.examples import READ, TOPOLOGY, random_sums
from tests.sums import full_sums, layout_of

EDGE = "attr/0.mlp.up->0.mlp.down"


def metric(dtype=torch.float32, **options):
    sums = AttributionSums(**options)
    sums.allocate(layout_of(TOPOLOGY), dtype, "cpu")
    return sums


def every_row_of(sums):
    """Sums in which every source has a row."""
    sums.rows({layer: np.arange(live.n_all) for layer, live in sums.live.items()})
    return sums


def only_output(n_components, vocab_size, d_model=1):
    """A graph in which the embedding feeds the output, and nothing else."""
    return Topology(
        n_components, {"output": ("embed",)}, vocab_size, d_model, {"output": "output"}, widths={"output": d_model}
    )


def contribute(seed):
    return lambda sums: sums.add_(random_sums(seed, torch.float32))


def test_compute_is_the_mean_per_token():
    sums = metric()
    for seed in range(3):
        sums.update(contribute(seed))
    total = sum(random_sums(seed).attr["0.mlp.down"]["0.mlp.up"].numbers for seed in range(3))
    n_tokens = sum(int(random_sums(seed).n_tokens) for seed in range(3))
    found = sums.compute()
    torch.testing.assert_close(found[EDGE], total / n_tokens, rtol=1e-5, atol=1e-6)
    assert found[EDGE].dtype == torch.float64
    assert float(found["n_tokens"]) == 1.0
    assert found.keys() == dict(sums.totals.named()).keys()


def test_the_mean_of_attr_abs_is_over_its_own_tokens():
    sums, first = metric(), random_sums(0)
    sums.update(contribute(0))

    def without_abs(some):
        some.signed().add_(random_sums(1, torch.float32).signed())
        some.n_abs_tokens.sub_(random_sums(1).n_abs_tokens)

    sums.update(without_abs)
    expected = first.attr_abs["0.mlp.down"]["0.mlp.up"].numbers / int(first.n_tokens)
    torch.testing.assert_close(sums.compute()["attr_abs/0.mlp.up->0.mlp.down"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metrics", ["both", "attr"])
def test_what_is_summed_is_allocated(metrics):
    sums = AttributionSums()
    sums.allocate(layout_of(TOPOLOGY, metrics), torch.float32, "cpu")
    sums.update(lambda some: some.n_tokens.add_(1))
    assert [bool(some.attr_abs) for some in (sums.recent, sums.totals)] == [metrics == "both"] * 2
    assert any(name.startswith("attr_abs/") for name in sums.compute()) == (metrics == "both")


def test_attributions_have_no_copy_beside_the_totals_on_a_cpu():
    """What is added to it, in whatever order with flushes, trials and what was restored, is there once."""
    sums, parts = metric(), [random_sums(seed) for seed in range(3)]
    beside = [t for name, t in parts[0].named() if not name.startswith("attr")]
    sums.add(parts[0])
    assert sums.nbytes - sums.totals.nbytes == sum(t.numel() * (4 if t.is_floating_point() else 8) for t in beside)
    contribute(7)(sums.trial())
    sums.update(contribute(1))
    sums.flush()
    sums.update(contribute(2))
    sums.flush()
    for name, total in sums.totals.named():
        expected = sum(dict(part.named())[name] for part in parts)
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6)


def test_update_is_additive():
    one, two = metric(), metric()
    one.update(contribute(1))
    one.update(contribute(2))

    def both(sums):
        contribute(1)(sums)
        contribute(2)(sums)

    two.update(both)
    for name, value in one.compute().items():
        torch.testing.assert_close(value, two.compute()[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("updates_per_flush", [1, 3, 100])
def test_flushing_changes_nothing_but_rounding(updates_per_flush):
    sums = metric(updates_per_flush=updates_per_flush)
    expected = full_sums(TOPOLOGY, torch.float64)
    for seed in range(7):
        sums.update(contribute(seed))
        expected.add_(random_sums(seed))
    sums.flush()
    for (_, found), (_, value) in zip(sums.totals.named(), expected.named(), strict=True):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)
    assert not sums.recent.n_tokens


def test_error_over_ten_thousand_batches():
    """Below 1e-5 of the sum of magnitudes, where a plain float32 sum is not: it drops what is small beside it."""
    sums = metric()
    generator = torch.Generator().manual_seed(0)
    shape = (3, 4)
    # A large first batch, then many of one sign that are each below half a unit in the last place of it.
    batches = [torch.full(shape, 2.0**24), *(torch.rand((9_999, *shape), generator=generator))]
    plain = torch.zeros(shape)
    for values in batches:
        plain += values
        sums.update(lambda s, values=values: every_row_of(s).attr["0.mlp.down"]["0.mlp.up"].numbers.add_(values))
    sums.flush()
    exact = torch.stack(batches).double().sum(0)
    magnitude = torch.stack(batches).double().abs().sum(0)
    error = (sums.totals.attr["0.mlp.down"]["0.mlp.up"].numbers - exact).abs() / magnitude
    assert float(error.max()) < 1e-5
    assert float(((plain - exact).abs() / magnitude).min()) > 1e-4


def test_update_and_flush_have_bounded_temporaries():
    topology = only_output({"0.mlp.up": 1, "0.mlp.down": 1}, vocab_size=3 * CHUNK)
    sums = AttributionSums(updates_per_flush=2)
    sums.allocate(layout_of(topology), torch.float32, "cpu")
    with PeakMemory() as memory:
        for _ in range(2):
            sums.update(lambda s: every_row_of(s).attr["output"]["embed"].numbers.add_(1.0))
    assert memory.peak <= 8 * CHUNK
    assert sums.totals.attr["output"]["embed"].numbers.eq(2).all()


def test_no_sums_in_buffers_parameters_or_state_dict():
    sums = metric()
    sums.update(contribute(0))
    assert not sums.state_dict()
    assert not list(sums.buffers())
    assert not list(sums.parameters())
    assert all(default.ndim == 0 for default in sums._defaults.values())
    assert all(reduction is not None for reduction in sums._reductions.values())


@pytest.mark.parametrize("cast", [torch.nn.Module.half, torch.nn.Module.bfloat16, lambda m: m.to(torch.bfloat16)])
def test_casting_the_module_leaves_the_sums_alone(cast):
    sums = metric()
    sums.update(contribute(0))
    cast(torch.nn.ModuleList([sums]))
    assert sums.totals.logit_sq.dtype == torch.float64
    assert sums.recent.logit_sq.dtype == torch.float32
    assert torch.equal(sums.metric_state[EDGE], random_sums(0, torch.float32).attr["0.mlp.down"]["0.mlp.up"].numbers)


def test_moving_the_module_to_where_it_is_leaves_the_sums_alone():
    """As Lightning does at the end: what is added then is there once, and what was there is not lost."""
    sums = metric()
    sums.update(contribute(0))
    module_list = torch.nn.ModuleList([sums]).cpu()
    sums.update(contribute(1))
    module_list.to("cpu")
    expected = random_sums(0)
    expected.add_(random_sums(1))
    found = sums.compute()
    right = expected.attr["0.mlp.down"]["0.mlp.up"].numbers / int(expected.n_tokens)
    torch.testing.assert_close(found[EDGE], right, rtol=1e-5, atol=1e-6)


def test_gradients_are_enabled_inside_update():
    enabled = []
    with torch.no_grad():
        metric().update(lambda _: enabled.append(torch.is_grad_enabled()))
    assert enabled == [True]


def test_reset_forgets():
    sums = metric()
    sums.update(contribute(0))
    sums.flush()
    sums.update(contribute(1))
    sums.reset()
    assert not any(t.any() for s in (sums.totals, sums.recent) for _, t in s.named())
    sums.update(contribute(2))
    assert float(sums.compute()["token_count"].sum()) == 1.0


def test_calling_the_metric_is_an_update():
    sums = metric()
    for _ in range(2):
        assert sums(contribute(1)) is None
    sums.flush()
    assert int(sums.totals.n_tokens) == int(sums.metric_state["n_tokens"]) == 2 * int(random_sums(1).n_tokens)


def test_allocating_again_begins_anew():
    sums = metric()
    sums.update(contribute(1))
    sums._is_synced = True
    sums.allocate(layout_of(TOPOLOGY), torch.float32, "cpu")
    sums.update(contribute(2))
    assert float(sums.compute()["token_count"].sum()) == 1.0


def test_sums_that_are_no_longer_finite():
    sums = metric()
    sums.update(lambda s: every_row_of(s).attr["0.mlp.down"]["0.mlp.up"].numbers[1, 1].fill_(float("inf")))
    with pytest.raises(NumericalError, match=r"finite after the last 1 updates \(attr/0.mlp.up->0.mlp.down\)"):
        sums.flush()


def test_sums_that_outgrow_memory(monkeypatch):
    """A harvest ends before the system ends it, and says what can be done; sums that do not grow need no room."""
    sums, first = metric(), random_sums(0)
    sums.update(contribute(0))
    monkeypatch.setattr(module, "free_bytes", lambda _: 0)
    sums.update(contribute(1))
    other = metric()
    expected = r"the sums of \d+ live sources take .* GB, .* GB are free on cpu; the ways out: .*target_shards"
    with pytest.raises(ConfigurationError, match=expected):
        other.update(contribute(0))
    assert other.totals.n_rows == first.n_rows


def test_merge_state():
    one, two = metric(), metric()
    one.update(contribute(1))
    two.update(contribute(2))
    one.merge_state(two)
    one.flush()
    expected = random_sums(1)
    expected.add_(random_sums(2))
    torch.testing.assert_close(one.totals.logit_sq, expected.logit_sq, rtol=1e-6, atol=1e-6)
    with pytest.raises(ConfigurationError, match="expected AttributionSums, found dict"):
        one.merge_state({})
    other = AttributionSums()
    other.allocate(layout_of(only_output({}, vocab_size=5, d_model=6)), torch.float32, "cpu")
    with pytest.raises(ConfigurationError, match="cannot merge sums of another topology"):
        one.merge_state(other)
    two._is_synced = True
    with pytest.raises(ConfigurationError, match="already reduced over all processes"):
        one.merge_state(two)


def squared(seeds, first_block):
    """Sums with squares of groups, one for each seed."""
    sums = AttributionSums(updates_per_flush=1)
    layout = layout_of(TOPOLOGY, squares_dtype=torch.float64)
    sums.allocate(
        layout, torch.float64, "cpu", {layer: READ.of_targets(layer) for layer in layout.squares}, first_block
    )
    for seed in seeds:
        sums.update(lambda some, seed=seed: some.add_(random_sums(seed)))
    return sums


def _two_ranks(rank, world_size, file, results):
    import resource

    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world_size)
    sums = metric()
    for _ in range(rank + 1):  # unequal token counts: rank 0 once, rank 1 twice
        sums.update(contribute(rank))
    mean = sums.compute()
    refused = None
    try:
        sums.update(contribute(0))
    except ConfigurationError as error:
        refused = str(error)
    again = sums.compute()

    with_squares = squared([rank, rank + 2], 8 * rank)
    with_squares.sync()

    big = AttributionSums()
    topology = only_output({"0.mlp.up": 1}, vocab_size=1_250_000, d_model=16)
    big.allocate(layout_of(topology), torch.float32, "cpu")
    big.update(lambda s: every_row_of(s).attr["output"]["embed"].numbers.fill_(rank + 1.0))
    big.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    big.sync()
    results[rank] = {
        "mean": {name: value.tolist() for name, value in mean.items()},
        "again": again[EDGE].equal(mean[EDGE]),
        "refused": refused,
        "squares": {name: tensor.tolist() for name, tensor in with_squares.totals.named()},
        "growth": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
        "big": tuple(map(float, big.totals.attr["output"]["embed"].numbers.aminmax())),
    }
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_of_unequal_token_counts(tmp_path):
    with multiprocessing.Manager() as manager:
        shared = manager.dict()
        multiprocessing.spawn(_two_ranks, (2, tmp_path / "rendezvous", shared), nprocs=2)
        results = dict(shared)
    expected = random_sums(0, torch.float32).to(torch.device("cpu"))
    for _ in range(2):
        expected.add_(random_sums(1, torch.float32))
    squares = squared([0, 2], 0)
    squares.merge_state(squared([1, 3], 8))
    for rank in (0, 1):
        for name, tensor in squares.totals.named():
            theirs = torch.tensor(results[rank]["squares"][name], dtype=tensor.dtype)
            torch.testing.assert_close(theirs, tensor, rtol=1e-12, atol=1e-12, msg=name)
        for name, tensor in expected.named():
            mean = torch.tensor(results[rank]["mean"][name], dtype=torch.float64)
            torch.testing.assert_close(mean, tensor.double() / int(expected.n_tokens), rtol=1e-5, atol=1e-6)
        assert results[rank]["again"]
        assert "they were already reduced over all processes" in results[rank]["refused"]
        assert results[rank]["big"] == (3.0, 3.0)
        # The state has 160 MB in the totals; torchmetrics' own synchronisation would add five times that.
        assert results[rank]["growth"] < 100_000  # kB
