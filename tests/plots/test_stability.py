import pytest
import torch

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.parts.ledger import Ledger
from lit_attr.parts.part import write_part
from lit_attr.parts.plan import Plan
from lit_attr.plots.stability import stability
from lit_attr.plots.stability_curves import plot_stability
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.parts.harvests import PLAN, begin, commit, header
from tests.storage.examples import READ, TOPOLOGY, random_sums, unembedding
from tests.sums import full_sums


def random_parts(folder, world_size, sizes=None):
    """Parts with random numbers, all of them large in the last one; those of the first `world_size` workers."""
    generation = begin(folder, world_size)
    sums = []
    for rank in range(len(sizes) if sizes else world_size):
        part = random_sums(rank)
        sums.append(part)
        ids = generation.assigned(rank)
        ranges = [[int(n), int(n), 1] for n in ids]
        known = {"plan": generation.plan.digest, "generation": 1, "rank": rank, "world_size": world_size}
        write_part(generation.part_path(rank), part, Ledger(**known, batches=ranges, n_tokens=int(part.n_tokens)))
    return sums


def tops(parts, target, k):
    """By the storage's own lists, of the sum of some parts."""
    total = full_sums(TOPOLOGY, torch.float64)
    for part in parts:
        total.add_(part)
    storage = DatasetAttributionStorage.from_sums(total, READ, unembedding(), 0.0)
    entries = [e for sign in ("positive", "negative") for e in storage.get_top_sources(str(target), 99, sign)]
    return {e.component_key for e in sorted(entries, key=lambda e: -abs(e.value))[:k]}


@pytest.mark.parametrize("k", [1, 3, 100])
def test_overlaps_are_those_of_the_storages_lists(tmp_path, k):
    parts = random_parts(tmp_path, 3)
    found = stability(tmp_path, k, n_targets=4)
    assert len(found.targets) == 4
    assert found.n_batches == [4, 7, 10]
    assert found.n_tokens[-1] == sum(int(part.n_tokens) for part in parts)
    for column, target in enumerate(found.targets):
        right = tops(parts, target, k)
        for row in range(3):
            now = tops(parts[: row + 1], target, k)
            assert found.overlap[row, column] == pytest.approx(len(now & right) / len(now | right))
    assert (found.overlap[-1] == 1).all()


def test_targets_are_those_with_the_strongest_edges(tmp_path):
    parts = random_parts(tmp_path, 2)
    storage = DatasetAttributionStorage.from_sums(max(parts, key=lambda p: int(p.n_tokens)), READ, unembedding(), 0.0)
    keys = [f"{layer}:{n}" for layer, count in TOPOLOGY.n_components.items() for n in range(count)]

    def size(key):
        return max(abs(e.value) for sign in ("positive", "negative") for e in storage.get_top_sources(key, 1, sign))

    expected = sorted(keys, key=size, reverse=True)[:3]
    assert [str(key) for key in stability(tmp_path, n_targets=3).targets] == expected


def test_parts_of_several_generations(tmp_path):
    commit(begin(tmp_path, 1, 4), 0)
    second = begin(tmp_path, 2, 10)
    commit(second, 1)
    found = stability(tmp_path)
    assert found.n_batches == [4, 7]
    assert found.n_planned == 10


def test_one_part_is_not_enough(tmp_path):
    for world_size in (1, 3):
        folder = tmp_path / str(world_size)
        generation = begin(folder, world_size)
        commit(generation, 0)
        with pytest.raises(
            ConfigurationError, match="stability needs at least 2 committed parts, found 1; harvest with"
        ):
            stability(folder)
    commit(generation, 1, [])  # holds nothing yet
    with pytest.raises(ConfigurationError, match="found 1"):
        stability(folder)
    with pytest.raises(ConfigurationError, match="k must be a whole number of at least 1, found 0"):
        stability(folder, k=0)


def test_a_damaged_part(tmp_path):
    generation = begin(tmp_path, 2)
    commit(generation, 0)
    path = commit(generation, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="damaged"):
        stability(tmp_path)


def test_the_picture(tmp_path):
    random_parts(tmp_path, 3)
    found = stability(tmp_path, n_targets=4)
    (axes,) = plot_stability(found).axes
    mean = next(line for line in axes.lines if line.get_label() == "mean")
    assert mean.get_xdata().tolist() == [4, 7, 10]
    assert mean.get_ydata().tolist() == pytest.approx(found.overlap.mean(1).tolist())
    assert axes.get_ylabel().endswith("with those of all 10 batches")


def test_the_picture_of_an_unfinished_harvest_says_so(tmp_path):
    random_parts(tmp_path, 3, sizes=[1, 1])
    (axes,) = plot_stability(stability(tmp_path)).axes
    assert axes.get_ylabel().endswith("with those of 7 of 10 batches")


def test_of_target_shards_the_one_with_the_most_parts_is_shown(tmp_path):
    plan = Plan({**PLAN.entries, "target_shards": 2}, 10)
    generations = [begin(tmp_path, n_workers, 10, plan, shard) for shard, n_workers in enumerate((3, 2))]
    for generation in generations:
        for rank in range(generation.world_size):
            commit(generation, rank)
    found = stability(tmp_path, 3)
    whole = begin(tmp_path / "whole", 3)
    for rank in range(3):
        commit(whole, rank)
    assert found.n_batches == [4, 7, 10]
    of_shard = {target for name in header().layout(generations[0]).inputs for target in TOPOLOGY.readers[name]}
    assert {key.layer for key in found.targets} <= of_shard < {*TOPOLOGY.sources}
    right = stability(tmp_path / "whole", 3, 100)
    columns = [right.targets.index(target) for target in found.targets]
    assert torch.equal(found.overlap, right.overlap[:, columns])
