"""Target shards that are united, and what keeps them from it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.parts.freeze import current_generation
from lit_attr.parts.ledger import read_ledger
from lit_attr.parts.merge import merge_harvest, write_merged
from lit_attr.parts.part import write_part
from lit_attr.parts.plan import Plan
from lit_attr.parts.status import status
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.parts.harvests import PLAN, begin, commit, header, of_shard, sums_of
from tests.storage.examples import READ, unembedding

THREE = Plan({**PLAN.entries, "target_shards": 3}, 10)
WORKERS = (2, 1, 3)


def shards_of(folder, n_batches=10, workers=WORKERS, plan=THREE):
    """The generation of each shard."""
    return [begin(folder, n, n_batches, plan, shard) for shard, n in enumerate(workers)]


def complete(generations):
    """Let all workers commit all that they are to do."""
    for generation in generations:
        for rank in range(generation.world_size):
            commit(generation, rank)
    return generations


def assert_result(path, batches):
    """All that the batches add up to, each number once."""
    found = DatasetAttributionStorage.load(path)
    right = DatasetAttributionStorage.from_sums(sums_of(batches), READ, unembedding(), 0.25)
    named = dict(found.named_sums())
    assert len(named) == len(dict(right.named_sums())) > 10
    for name, tensor in right.named_sums():
        assert torch.equal(named[name], tensor), name
    assert found.n_tokens_processed == found.provenance["n_tokens"] == right.n_tokens_processed
    assert found.provenance["coverage"]["batches"] == [[min(batches), max(batches), 1]]


def test_shards_of_other_numbers_of_workers_and_generations(tmp_path):
    generations = shards_of(tmp_path)
    commit(generations[0], 1)
    commit(generations[2], 0)
    complete(shards_of(tmp_path, workers=(3, 1, 2)))
    path = merge_harvest(tmp_path)
    assert path == tmp_path / "dataset_attributions.pt"
    assert_result(path, range(10))
    complete(shards_of(tmp_path, 12, (1, 2, 3)))
    assert_result(merge_harvest(tmp_path), range(12))


def test_a_partial_result_needs_the_same_batches_of_all(tmp_path):
    generations = shards_of(tmp_path, workers=(1, 1, 1))
    with pytest.raises(StorageError, match="no worker has committed anything yet"):
        merge_harvest(tmp_path, allow_partial=True)
    for shard, generation in enumerate(generations):
        commit(generation, 0, range(3 + shard))
    lacking = r"target shard 0 lacks 2 \(3-4\); target shard 1 lacks 1 \(4\)\. Let their workers finish them"
    with pytest.raises(StorageError, match=lacking):
        merge_harvest(tmp_path, allow_partial=True)
    for generation in generations:
        commit(generation, 0, range(5))
    with pytest.raises(StorageError, match=r"target_shard_0: of 10 batches 5 \(5-9\) are missing\. Let the workers"):
        merge_harvest(tmp_path)
    path = merge_harvest(tmp_path, allow_partial=True)
    assert path.name == "dataset_attributions.partial.pt"
    assert_result(path, range(5))


def test_shards_that_are_missing_or_behind(tmp_path):
    complete([begin(tmp_path, 1, 10, THREE, shard) for shard in (0, 2)])
    words = (
        r"target shard 1 has not begun with batches 10 \(0-9\) of the harvest's 10: start .*\(--data\.target_shard 1\)"
    )
    for allow_partial in (False, True):
        with pytest.raises(StorageError, match=words):
            merge_harvest(tmp_path, allow_partial=allow_partial)
    assert [(shard.n_done, shard.n_batches) for shard in status(tmp_path).shards] == [(10, 10), (0, 0), (10, 10)]
    assert (status(tmp_path).n_done, status(tmp_path).n_batches) == (0, 10)
    complete([begin(tmp_path, 1, 10, THREE, 1), begin(tmp_path, 1, 12, THREE, 2)])
    with pytest.raises(
        StorageError, match=r"target shard 0 has not begun with batches 2 \(10-11\) of the harvest's 12"
    ):
        merge_harvest(tmp_path)
    assert status(tmp_path).seconds_left == float("inf")


def test_a_part_of_another_shard_is_refused(tmp_path):
    """In place of a worker's, whose columns and ledger are compared, and of a frozen one."""
    generations = complete(shards_of(tmp_path, workers=(1, 1, 1)))
    second = generations[1].part_path(0)
    second.write_bytes(generations[0].part_path(0).read_bytes())
    with pytest.raises(
        StorageError, match=r"target_shard_1/.*_rank_0\.pt: its sums are not those of this harvest's mod"
    ):
        merge_harvest(tmp_path)
    for changes in ({"target_shard": 0}, {"target_shards": 2}):
        commit(generations[1], 0, **changes)
        found = f"found {changes.get('target_shard', 1)} of {changes.get('target_shards', 3)}"
        with pytest.raises(StorageError, match=f"foreign part: expected target shard 1 of 3, {found}"):
            merge_harvest(tmp_path)
    commit(generations[1], 0)
    shards_of(tmp_path, workers=(1, 2, 1))
    (frozen,) = second.parent.glob("frozen_*")
    commit(generations[1], 0, target_shard=2)
    second.replace(frozen)
    with pytest.raises(StorageError, match=r"frozen_generation_1_rank_0_.*is a foreign part"):
        merge_harvest(tmp_path)


def test_columns_of_other_targets_are_refused(tmp_path):
    """As many of them, in the same layers: shapes alone would not tell."""
    generations = complete(shards_of(tmp_path, workers=(1, 1, 1)))
    sums, path = of_shard(sums_of(range(10)), generations[2]), generations[2].part_path(0)
    layer, ids = next((layer, ids) for layer, ids in sums.layout.targets.items() if len(ids))
    layout = replace(sums.layout, targets={**sums.layout.targets, layer: ids + 1})
    write_part(path, replace(sums, layout=layout), read_ledger(path))
    with pytest.raises(StorageError, match=r"target_shard_2/.*its columns are of other targets than"):
        merge_harvest(tmp_path)


@pytest.mark.parametrize("letters", ["aab", "aba"])
def test_shards_whose_data_has_another_digest(tmp_path, letters):
    generations = []
    for shard, letter in enumerate(letters):
        begin(tmp_path, 1, 9, THREE, shard)
        digest = lambda n_batches, letter=letter: f"{letter}{n_batches}"  # noqa: E731
        generations.append(current_generation(tmp_path, THREE, 1, 10, digest, shard))
    complete(generations)
    with pytest.raises(StorageError, match=r"shards 0 and . saw other data, with digests \['a10', 'b10'\]"):
        merge_harvest(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "token_count",
            r"target shards 0 and 2 saw other data: token id 3 occurs \d+ times in the first, \d+ in the seco",
        ),
        (
            "n_abs_tokens",
            r"target shards 0 and 2 took attr_abs from other sequences: of 1023 tokens in the first, 1022 in",
        ),
    ],
)
def test_shards_that_have_counted_other_tokens(tmp_path, name, words):
    generations = complete(shards_of(tmp_path, workers=(1, 1, 1)))
    sums, ledger = of_shard(sums_of(range(10)), generations[2]), read_ledger(generations[2].part_path(0))
    count = getattr(sums, name)
    if name == "token_count":
        count[3] -= 1
        count[4] += 1
    else:
        count -= 1
    write_part(generations[2].part_path(0), sums, ledger)
    with pytest.raises(StorageError, match=words):
        merge_harvest(tmp_path)


def test_a_result_of_fewer_batches_replaces_none_of_more(tmp_path):
    """One who still writes it, while others extend another shard."""
    fewer = complete(shards_of(tmp_path, 4, (1, 1, 1)))
    begin(tmp_path, 1, 8, THREE, 2)
    with pytest.raises(StorageError, match="was extended to 8 batches, the result of 4 is not written"):
        write_merged(fewer, header(), {"all": sums_of(range(4))}, np.arange(4), [])
