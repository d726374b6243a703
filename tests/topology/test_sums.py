import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_attr.harvest.memory import PeakMemory
from lit_attr.topology import sums as module
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import CHUNK, Sums, add_chunked_, source_of
from lit_attr.topology.tables import LiveRows, Table
from tests.storage.examples import TOPOLOGY, random_sums
from tests.sums import by_source, full_sums, zero_sums


def test_names_are_unique_and_cover_every_tensor():
    sums = random_sums()
    names = [name for name, _ in sums.named()]
    assert len(names) == len(set(names))
    tensors = [v for v in vars(sums).values() if isinstance(v, torch.Tensor)]
    nested = [sums.attr, sums.attr_abs, sums.ci, sums.act_sq]
    while nested:
        for value in nested.pop().values():
            (nested if isinstance(value, dict) else tensors).append(value)
    assert len(tensors) == len(names)
    numbers = [t if isinstance(t, torch.Tensor) else t.numbers for t in tensors]
    assert sums.nbytes == sum(t.nbytes for t in numbers)


def grown(seed, dtype=torch.float64):
    """Sums to which sources came in a random order, some of them twice, some not at all, and what they should be."""
    generator = np.random.default_rng(seed)
    sums, right = zero_sums(TOPOLOGY, dtype), full_sums(TOPOLOGY, dtype)
    for _ in range(3):
        some = {
            layer: generator.permutation(live.n_all)[: generator.integers(live.n_all + 1)]
            for layer, live in sums.live.items()
        }
        rows = sums.rows(some)
        for (name, table), (_, whole) in zip(sums.tables(), right.tables(), strict=True):
            layer = source_of(name)
            values = torch.from_numpy(generator.standard_normal((len(some[layer]), table.width))).to(dtype)
            if rows[layer] is None:
                table.numbers.add_(values)
            else:
                table.numbers[rows[layer]] += values
            whole.numbers[some[layer]] += values
    return sums, right


@pytest.mark.parametrize("seed", range(3))
def test_sources_have_rows_in_the_order_in_which_they_come(seed):
    sums, right = grown(seed)
    for (name, table), (_, whole) in zip(sums.tables(), right.tables(), strict=True):
        assert len(table.numbers) == len(sums.live[source_of(name)])
        assert torch.equal(by_source(table), whole.numbers)
    ascending = {layer: np.flatnonzero(live.row_of >= 0) for layer, live in sums.live.items()}
    sums.sort_rows(ascending)
    for (name, table), (_, whole) in zip(sums.tables(), right.tables(), strict=True):
        assert sums.live[source_of(name)].ids.tolist() == ascending[source_of(name)].tolist()
        assert torch.equal(table.numbers, whole.numbers[ascending[source_of(name)]])
    # Others may come, with rows of zeros.
    sums.sort_rows({layer: np.arange(live.n_all)[::-1] for layer, live in sums.live.items()})
    assert all(
        torch.equal(table.numbers, whole.numbers.flip(0))
        for (_, table), (_, whole) in zip(sums.tables(), right.tables(), strict=True)
    )
    sums.forget()
    assert not any(tensor.any() for _, tensor in sums.named())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_with_other_rows_add_up(dtype, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 5)
    (total, right), (more, also) = grown(0), grown(1, dtype)
    total.add_(more)
    right.add_(also)
    for (_, table), (_, whole) in zip(total.tables(), right.tables(), strict=True):
        torch.testing.assert_close(by_source(table), whole.numbers, rtol=1e-12, atol=1e-12)


def test_a_table_grows_rarely():
    live, pointers = LiveRows(10_000), set()
    table = Table(live, 3, torch.float64, "cpu")
    for source in range(10_000):
        live.rows(np.array([source]))
        table.numbers[-1] = source
        pointers.add(table.numbers.data_ptr())
    assert torch.equal(table.numbers[:, 0], torch.arange(10_000, dtype=torch.float64))
    assert len(pointers) < 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_add_promotes(dtype):
    total = full_sums(TOPOLOGY, torch.float64)
    total.add_(random_sums(0, dtype))
    total.add_(random_sums(1, dtype))
    for (_, t), (_, a), (_, b) in zip(
        total.named(), random_sums(0, dtype).named(), random_sums(1, dtype).named(), strict=True
    ):
        assert torch.equal(t, a.to(t.dtype) + b.to(t.dtype))


def test_addition_has_a_bounded_temporary():
    total, part = torch.zeros(3 * CHUNK + 5, dtype=torch.float64), torch.ones(3 * CHUNK + 5)
    with PeakMemory() as memory:
        add_chunked_(total, part)
    assert total.eq(1).all()
    assert memory.peak <= 8 * CHUNK


SHARED = Topology(
    n_components={"0.attn.q": 2, "0.attn.k": 3, "0.attn.o": 4},
    sources={
        "0.attn.q": ("embed",),
        "0.attn.k": ("embed",),
        "0.attn.o": ("0.attn.q", "0.attn.k"),
        "output": ("embed",),
    },
    vocab_size=5,
    d_model=6,
    inputs={"0.attn.q": "0.attn.q", "0.attn.k": "0.attn.q", "0.attn.o": "0.attn.o", "output": "output"},
    widths={"0.attn.q": 6, "0.attn.o": 8, "output": 6},
)


@pytest.mark.parametrize("metrics", ["both", "attr"])
def test_attr_has_a_table_for_each_input_and_attr_abs_one_for_each_target(metrics):
    sums = full_sums(SHARED, torch.float64, metrics=metrics)
    shapes = {name: tuple(tensor.shape) for name, tensor in sums.named() if "->" in name}
    signed = {
        "attr/embed->0.attn.q": (5, 6),
        "attr/0.attn.q->0.attn.o": (2, 8),
        "attr/0.attn.k->0.attn.o": (3, 8),
        "attr/embed->output": (5, 6),
    }
    absolute = {
        "attr_abs/embed->0.attn.q": (5, 2),
        "attr_abs/embed->0.attn.k": (5, 3),
        "attr_abs/0.attn.q->0.attn.o": (2, 4),
        "attr_abs/0.attn.k->0.attn.o": (3, 4),
    }
    assert shapes == (signed | absolute if metrics == "both" else signed)
    assert bool(sums.attr_abs) == (metrics == "both")
    live = {layer: rows.ids for layer, rows in sums.live.items()}
    again = Sums.from_named(sums.layout, live, dict(sums.named()))
    assert all(one.data_ptr() == two.data_ptr() for (_, one), (_, two) in zip(again.named(), sums.named(), strict=True))


def test_signed_sums_are_a_view():
    sums = random_sums()
    signed = sums.signed()
    assert not signed.attr_abs
    mine = dict(sums.named())
    assert all(tensor.data_ptr() == mine[name].data_ptr() for name, tensor in signed.named())
    assert mine.keys() - dict(signed.named()).keys() == {name for name in mine if name.startswith("attr_abs/")}


def test_move_to_where_it_is_copies_nothing():
    sums = random_sums()
    moved = sums.to(torch.device("cpu"))
    assert all(a.data_ptr() == b.data_ptr() for (_, a), (_, b) in zip(sums.named(), moved.named(), strict=True))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read as Linux tells it")
def test_zeros_take_memory_where_something_is_added():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    n, before = 5000, resident()
    topology = Topology(
        {"0.attn.o": n, "0.mlp.up": n}, {"0.mlp.up": ("0.attn.o",)}, 3, 2, {"0.mlp.up": "x"}, widths={"x": 2}
    )
    sums = full_sums(topology, torch.float64)
    assert sums.nbytes > 8 * n**2
    sums.attr_abs["0.mlp.up"]["0.attn.o"].numbers[: n // 10] += 1.0
    assert resident() - before < 2 * n**2
