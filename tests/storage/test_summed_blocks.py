"""Blocks of parts are those of the result that the parts become, and so are its strongest edges."""

import pytest
import torch

from lit_attr.errors import NumericalError
from lit_attr.query.layer_pairs import layer_pairs
from lit_attr.query.strongest_build import write_strongest
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.summed_blocks import SummedBlocks
from lit_attr.storage.write import write_result
from lit_attr.topology.choice import Measure
from tests.storage.test_summed import W_UNEMBED, random_part, read_vectors


@pytest.fixture(params=["both", "attr", "no abs"])
def blocks(request, tmp_path):
    """Of some parts, and of the result that they become."""
    metrics = "attr" if request.param == "attr" else "both"
    n_abs = (0, 0, 0) if request.param == "no abs" else (8, 4, 2)
    parts = {f"part {n}": random_part(8 * n + 8, n_abs[n], metrics) for n in range(3)}
    for name, tensor in (named for part in parts.values() for named in part.named()):
        if not name.startswith("attr"):
            tensor.abs_()
    read, path = read_vectors(torch.float32), tmp_path / "x.pt"
    write_result(path, parts, read, W_UNEMBED, 0.5, {"a": 1}, normalising=["part 0", "part 2"], is_dense=False)
    return SummedBlocks(parts, read, W_UNEMBED, 0.5, {"a": 1}, ["part 0", "part 2"]), Blocks(
        DatasetAttributionStorage.load(path)
    )


def test_tiles_rows_and_columns(blocks):
    summed, stored = blocks
    assert summed.content.metrics == stored.content.metrics
    n_tiles = 0
    for metric in stored.content.metrics:
        assert layer_pairs(summed, metric) == layer_pairs(stored, metric)
        for source, target in layer_pairs(stored, metric):
            n_sources, n_targets = (
                len(stored.content.stored_sources(source)),
                len(stored.content.stored_targets(target)),
            )
            for measure in (Measure(metric, normalized=False), Measure(metric)):
                for places in ((slice(None), slice(None)), (slice(1, 3), slice(0, 2)), (slice(0, 1), slice(1, None))):
                    right, found = (one.tile(source, target, measure, *places) for one in (stored, summed))
                    assert found.shape == right.shape
                    torch.testing.assert_close(found, right, rtol=2e-7, atol=0)
                    n_tiles += found.numel() > 0
                if n_sources and n_targets:
                    for ask, place in (("row", n_targets - 1), ("column", n_sources - 1)):
                        right, found = (getattr(one, ask)(source, target, measure, place) for one in (stored, summed))
                        torch.testing.assert_close(found, right, rtol=2e-7, atol=0)
    assert n_tiles > 10


def test_strongest_edges_of_parts(blocks, tmp_path):
    """Byte for byte those of the result: normalisers, provenance, lists, and what they lack."""
    files = [write_strongest(one, tmp_path / f"{number}.strongest", 2) for number, one in enumerate(blocks)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_sums_of_edges_are_not_zeros_by_mistake(blocks):
    content = blocks[0].content
    assert content.holds_edges
    assert all(tensor.is_meta for name, tensor in content.named_sums() if "embed_attr" in name)


def test_parts_that_are_no_numbers(tmp_path):
    parts = {"one": random_part(8, 8), "two": random_part(8, 8)}
    for part in parts.values():
        for tensors in (part.ci, part.act_sq):
            for tensor in tensors.values():
                tensor.abs_()
        part.logit_sq.abs_()
    parts["two"].attr["0.attn.o"]["0.attn.q"].numbers[0, 0] = torch.nan
    blocks = SummedBlocks(parts, read_vectors(torch.float32), W_UNEMBED, 0.5, {})
    with pytest.raises(
        NumericalError, match=r"two: regular_attr\[0\.attn\.o\]\[0\.attn\.q\] has values that are not finite"
    ):
        write_strongest(blocks, tmp_path / "x.strongest")
    parts["one"].logit_sq[0] = torch.inf
    with pytest.raises(NumericalError, match=r"one: logit_sq_sum has values"):
        SummedBlocks(parts, read_vectors(torch.float32), W_UNEMBED, 0.5, {})
    assert not list(tmp_path.iterdir())
