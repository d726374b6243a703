import pytest
import torch

from lit_attr.harvest.memory import PeakMemory
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


@pytest.mark.parametrize(("target", "sources"), TOPOLOGY.sources.items())
def test_edge_is_a_view_of_the_sums_source_by_target(target, sources):
    width = {"embed": TOPOLOGY.vocab_size, "output": TOPOLOGY.d_model, **TOPOLOGY.n_components}
    for source in sources:
        sums = Sums.zeros(TOPOLOGY, torch.float64)
        edge = sums.edge(source, target)
        assert list(edge) == (["attr"] if target == "output" else ["attr", "attr_abs"])
        for number, (metric, table) in enumerate(edge.items(), 1):
            assert table.shape == (width[source], width[target])
            table[1, 0] = number
            (changed,) = [(name, t) for name, t in sums.named() if (t == number).any()]
            assert changed[0] == f"{metric}/{source}->{target}"
            # Tokens are rows in the sums too; component sources are columns.
            assert changed[1][(1, 0) if source == "embed" else (0, 1)] == number


@pytest.mark.parametrize(("source", "target"), [("0.mlp.up", "output"), ("embed", "0.mlp.down"), ("output", "embed")])
def test_an_edge_that_the_topology_does_not_have(source, target):
    with pytest.raises(KeyError):
        random_sums().edge(source, target)


def test_zero():
    sums = random_sums()
    sums.zero_()
    assert not any(tensor.any() for _, tensor in sums.named())


def test_move_to_where_it_is_copies_nothing():
    sums = random_sums()
    moved = sums.to(torch.device("cpu"))
    assert all(a is b for (_, a), (_, b) in zip(sums.named(), moved.named(), strict=True))
