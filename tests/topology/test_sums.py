import os
from pathlib import Path

import pytest
import torch

from lit_attr.harvest.memory import PeakMemory
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import CHUNK, Sums, add_chunked_
from tests.storage.examples import TOPOLOGY, random_sums


def test_names_are_unique_and_cover_every_tensor():
    sums = random_sums()
    names = [name for name, _ in sums.named()]
    assert len(names) == len(set(names))
    tensors = [v for v in vars(sums).values() if isinstance(v, torch.Tensor)]
    nested = [v for v in vars(sums).values() if isinstance(v, dict)]
    while nested:
        for value in nested.pop().values():
            (nested if isinstance(value, dict) else tensors).append(value)
    assert len(tensors) == len(names)
    assert sums.nbytes == sum(t.nbytes for t in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_add_promotes(dtype):
    total = Sums.zeros(TOPOLOGY, torch.float64)
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
    sums = Sums.zeros(SHARED, torch.float64, metrics=metrics)
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
    again = Sums.from_named(SHARED, dict(sums.named()), metrics)
    assert all(one is two for (_, one), (_, two) in zip(again.named(), sums.named(), strict=True))


def test_signed_sums_are_a_view():
    sums = random_sums()
    signed = sums.signed()
    assert not signed.attr_abs
    mine = dict(sums.named())
    assert all(tensor is mine[name] for name, tensor in signed.named())
    assert mine.keys() - dict(signed.named()).keys() == {name for name in mine if name.startswith("attr_abs/")}


def test_zero():
    sums = random_sums()
    sums.zero_()
    assert not any(tensor.any() for _, tensor in sums.named())


def test_move_to_where_it_is_copies_nothing():
    sums = random_sums()
    moved = sums.to(torch.device("cpu"))
    assert all(a is b for (_, a), (_, b) in zip(sums.named(), moved.named(), strict=True))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read as Linux tells it")
def test_zeros_take_memory_where_something_is_added():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    n, before = 5000, resident()
    topology = Topology(
        {"0.attn.o": n, "0.mlp.up": n}, {"0.mlp.up": ("0.attn.o",)}, 3, 2, {"0.mlp.up": "x"}, widths={"x": 2}
    )
    sums = Sums.zeros(topology, torch.float64)
    assert sums.nbytes > 8 * n**2
    sums.attr_abs["0.mlp.up"]["0.attn.o"][: n // 10] += 1.0
    assert resident() - before < 2 * n**2
