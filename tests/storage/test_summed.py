"""Results of random read vectors, target by target in float64: those of a shared input, of dead targets, of parts."""

import numpy as np
import pytest
import torch

from lit_attr.storage import summed
from lit_attr.storage.compact import dense
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.result_form import result_nbytes
from lit_attr.storage.write import write_result
from lit_attr.topology.graph import Topology
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums, row_counts
from tests.sums import by_source, layout_of

TOPOLOGY = Topology(
    n_components={"0.attn.q": 3, "0.attn.k": 2, "0.attn.o": 5},
    sources={
        "0.attn.q": ("embed",),
        "0.attn.k": ("embed",),
        "output": ("embed", "0.attn.o"),
        "0.attn.o": ("0.attn.q", "0.attn.k"),
    },
    vocab_size=7,
    d_model=6,
    inputs={"0.attn.q": "0.attn.q", "0.attn.k": "0.attn.q", "output": "output", "0.attn.o": "0.attn.o"},
    widths={"0.attn.q": 6, "output": 6, "0.attn.o": 8},
)
GENERATOR = torch.Generator().manual_seed(0)
ALIVE = {
    "0.attn.q": torch.tensor([True, False, True]),
    "0.attn.k": torch.tensor([False, False]),
    "0.attn.o": torch.ones(5, dtype=torch.bool),
}
W_UNEMBED = torch.randn(6, 7, generator=GENERATOR)


def randn(*shape):
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def read_vectors(dtype):
    widths = {"0.attn.q": 6, "0.attn.k": 6, "0.attn.o": 8}
    vectors = {layer: randn(width, TOPOLOGY.n_components[layer]).to(dtype) for layer, width in widths.items()}
    return ReadVectors(TOPOLOGY.inputs, vectors, ALIVE)


def random_part(n_tokens, n_abs_tokens, metrics="both"):
    """Sums in which some of the sources have a row, in a random order."""
    layout = layout_of(TOPOLOGY, metrics, ALIVE)
    some = {layer: torch.randperm(n, generator=GENERATOR)[: 1 + n // 2] for layer, n in row_counts(layout).items()}
    sums = Sums.zeros(layout, torch.float64)
    sums.rows({layer: ids.numpy() for layer, ids in some.items()})
    for _, tensor in sums.named():
        if tensor.is_floating_point():
            tensor.copy_(randn(*tensor.shape))
    for layer, ci in sums.ci.items():
        if layer in sums.live:  # of what has no row, some occurs all the same: it feeds nothing that is a target
            occurs = torch.isin(torch.arange(len(ci)), torch.from_numpy(sums.live[layer].ids))
            ci *= occurs | (torch.arange(len(ci)) % 2 == 0)
    sums.token_count[int(sums.live["embed"].ids[0])] = n_tokens
    sums.n_tokens.fill_(n_tokens)
    sums.n_abs_tokens.fill_(n_abs_tokens)
    return sums


def occurring(parts, layer):
    counts = [part.token_count if layer == "embed" else part.ci[layer] for part in parts]
    return {i for count in counts for i in count.nonzero()[:, 0].tolist()}


def expected_blocks(parts, read, factor):
    """Metric, target and source to a block, target by source, by numpy."""
    blocks = {}
    for target, sources in TOPOLOGY.sources.items():
        for source in sources:
            if TOPOLOGY.inputs[target] not in parts[0].attr:
                continue
            table = sum(by_source(part.attr[TOPOLOGY.inputs[target]][source]).numpy() for part in parts)
            if target == "output":
                blocks["attr", target, source] = table.T
                continue
            vectors = read.vectors[target].double().numpy()
            block = np.einsum("wt,sw->ts", vectors, table)
            block[~ALIVE[target].numpy()] = 0
            blocks["attr", target, source] = block
            if parts[0].attr_abs:
                tables = [by_source(part.attr_abs[target][source]).numpy() for part in parts]
                blocks["attr_abs", target, source] = np.zeros(block.shape)
                blocks["attr_abs", target, source][ALIVE[target].numpy()] = factor * sum(tables).T
    return blocks


def blocks_of(storage):
    blocks = {("attr", "output", source): block for source, block in storage.unembed_attr.items()}
    blocks["attr", "output", "embed"] = storage.embed_unembed_attr
    for metric, regular, embed in (
        ("attr", storage.regular_attr, storage.embed_attr),
        ("attr_abs", storage.regular_attr_abs, storage.embed_attr_abs),
    ):
        blocks |= {(metric, t, s): block for t, by_source in regular.items() for s, block in by_source.items()}
        blocks |= {(metric, t, "embed"): block for t, block in embed.items()}
    return blocks


def assert_blocks(storage, expected, tolerance):
    found = blocks_of(storage)
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        np.testing.assert_allclose(found[name].double().numpy(), right, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("tile", [1, 9, 20, 1 << 23])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_result_of_several_parts(tmp_path, monkeypatch, tile, dtype):
    monkeypatch.setattr(summed, "TILE", tile)
    # One part has none of the batches whose `attr_abs` is taken.
    parts, read = [random_part(8, 8), random_part(16, 0), random_part(4, 2)], read_vectors(dtype)
    for table in (table for tables in parts[1].attr_abs.values() for table in tables.values()):
        table.numbers.zero_()
    write_result(tmp_path / "a.pt", dict(enumerate(parts)), read, W_UNEMBED, 0.0, {})
    storage = DatasetAttributionStorage.load(tmp_path / "a.pt")
    assert storage.n_tokens_processed == 28
    expected = expected_blocks(parts, read, 28 / 10)
    assert_blocks(storage, expected, 2e-6)
    write_result(tmp_path / "b.pt", dict(enumerate(parts)), read, W_UNEMBED, 0.0, {}, is_dense=False)
    compact = DatasetAttributionStorage.load(tmp_path / "b.pt")
    ids = {
        layer: sorted({i for part in parts for i in part.live[layer].ids.tolist()} | occurring(parts, layer))
        for layer in parts[0].live
    }
    assert {layer: live.tolist() for layer, live in compact.live.sources.items()} == ids
    assert {layer: live.tolist() for layer, live in compact.live.targets.items()} == {
        layer: mask.nonzero()[:, 0].tolist() for layer, mask in ALIVE.items()
    }
    counts = ({layer: len(ids) for layer, ids in side.items()} for side in vars(compact.live).values())
    for written, places in ((storage, ()), (compact, tuple(counts))):
        nbytes = sum(tensor.nbytes for _, tensor in written.named_sums()) + W_UNEMBED.nbytes
        assert result_nbytes(TOPOLOGY, "both", *places) == nbytes
    for (name, one), (_, two) in zip(dense(compact).named_sums(), storage.named_sums(), strict=True):
        assert torch.equal(one, two), name
    whole = Sums.zeros(parts[0].layout, torch.float64)
    for part in parts:
        whole.add_(part)
    assert_blocks(DatasetAttributionStorage.from_sums(whole, read, W_UNEMBED, 0.0), expected, 1e-12)


@pytest.mark.parametrize("metrics", ["both", "attr"])
def test_without_a_batch_of_the_share_there_is_no_attr_abs(tmp_path, metrics):
    """It is not zero: nothing was measured."""
    parts, read = [random_part(8, 0, metrics), random_part(16, 0, metrics)], read_vectors(torch.float32)
    write_result(tmp_path / "a.pt", dict(enumerate(parts)), read, W_UNEMBED, 0.0, {})
    storage = DatasetAttributionStorage.load(tmp_path / "a.pt")
    assert (storage.regular_attr_abs, storage.embed_attr_abs) == ({}, {})
    assert_blocks(storage, expected_blocks([part.signed() for part in parts], read, 1.0), 2e-6)
