"""Which place in the grid of data and target shards a process has, and what is refused."""

from types import SimpleNamespace

import pytest

from lit_attr.errors import ConfigurationError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.resume import HarvestSettings, open_harvest
from lit_attr.parts.plan import Plan
from lit_attr.storage.result_folders import Place
from tests.toys import write_tokens

SETTINGS = HarvestSettings("run", "weights", "32-true", "both", 1.0, True, {})


@pytest.fixture
def data(tmp_path):
    """Data of seven batches, of a process of a trainer."""
    tokens = write_tokens(tmp_path / "tokens.npy", n_rows=13)

    def data(process=(0, 1), **settings):
        found = TokenDataModule(tokens, batch_size=2, **settings)
        found.setup()
        found.trainer = SimpleNamespace(global_rank=process[0], world_size=process[1])
        return found

    return data


def places(data, n_processes, **settings):
    """Rank and number of workers, and shard, of each process of a trainer."""
    found = [data((rank, n_processes), **settings) for rank in range(n_processes)]
    return [(*one.worker(), one.shard) for one in found]


def test_processes_of_a_trainer_are_dealt_out_over_the_shards(data):
    assert places(data, 6, target_shards=2) == [(0, 3, 0), (0, 3, 1), (1, 3, 0), (1, 3, 1), (2, 3, 0), (2, 3, 1)]
    assert places(data, 3, target_shards=3) == [(0, 1, 0), (0, 1, 1), (0, 1, 2)]
    assert places(data, 2) == [(0, 2, 0), (1, 2, 0)]
    one = data((1, 4), target_shards=2)
    assert (list(one.shards), one.independent) == ([0, 1], False)


def test_independent_workers_are_of_one_shard(data):
    assert places(data, 1, rank=2, world_size=3, target_shards=2, target_shard=1) == [(2, 3, 1)]
    assert places(data, 2, target_shards=2, target_shard=1) == [(0, 2, 1), (1, 2, 1)], "a trainer of one shard"
    for settings in ({"target_shard": 1}, {"target_shard": 0, "rank": 1, "world_size": 2}):
        one = data(target_shards=2, **settings)
        assert (list(one.shards), one.independent) == ([one.shard], True)
    assert not data(target_shard=0).independent


@pytest.mark.parametrize(
    ("process", "settings", "words"),
    [
        ((0, 1), {"target_shards": 0}, r"data\.target_shards must be at least 1, found 0"),
        ((0, 1), {"target_shards": 2, "target_shard": 2}, r"target_shard must be 0 to .* - 1 = 1, found 2"),
        ((0, 1), {"target_shard": 1}, r"target_shard must be 0 to data\.target_shards - 1 = 0, found 1"),
        ((0, 1), {"target_shards": 3, "world_size": 2}, r"which one, says --data\.target_shard, from 0 to 2"),
        ((0, 1), {"target_shards": 2}, r"2, and the trainer's 1 processes do not divide .*: give it a multiple of 2"),
        ((0, 4), {"target_shards": 3}, r"3, and the trainer's 4 .* \(--data\.target_shard, from 0 to 2\), or choose"),
        ((0, 2), {"target_shards": 2, "target_shard": 0, "world_size": 2}, r"use --trainer\.devices 1"),
    ],
)
def test_what_makes_no_grid_is_refused(data, process, settings, words):
    with pytest.raises(ConfigurationError, match=words):
        data(process, **settings).worker()


def test_the_number_of_shards_is_fixed_and_each_has_generations_of_its_own(data, tmp_path):
    def opened(world_size, **settings):
        generations, presence = open_harvest(SETTINGS, data(**settings), world_size, Place(tmp_path, "da-x"))
        presence.leave()
        return generations

    both = opened(2, target_shards=2)
    assert [(shard, one.shard, one.number, one.world_size) for shard, one in both.items()] == [
        (0, 0, 1, 2),
        (1, 1, 1, 2),
    ]
    folder = both[0].folder
    assert [one.part_path(0).relative_to(folder).parts[0] for one in both.values()] == [
        "target_shard_0",
        "target_shard_1",
    ]
    assert Plan.load(folder).target_shards == 2
    assert {shard: one.number for shard, one in opened(3, target_shards=2, target_shard=1).items()} == {1: 2}
    assert {shard: one.number for shard, one in opened(2, target_shards=2, target_shard=0).items()} == {0: 1}
    for settings in ({}, {"target_shards": 3}):
        found = settings.get("target_shards", 1)
        with pytest.raises(ConfigurationError, match=f"target_shards: the harvest has 2, this command {found}"):
            opened(1, **settings)
    assert opened(3, target_shards=2, target_shard=1)[1].n_batches == 7
    with pytest.raises(ConfigurationError, match="n_batches: the harvest has 7, this command 5"):
        opened(2, target_shards=2, target_shard=0, n_batches=5)


def test_independent_workers_need_a_name(data, tmp_path):
    with pytest.raises(ConfigurationError, match=r"data\.world_size is 1, of 2 target shards: independent workers"):
        open_harvest(SETTINGS, data(target_shards=2, target_shard=1), 1, Place(tmp_path))
