"""Grids of data and target shards, whose results are those of one process."""

import signal

import pytest

from benchmarks.workers import Work, free_port, start
from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.parts.generations import begun_generations
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.status import status
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.harvest.runs import assert_same, stop, work
from tests.toys import write_run, write_tokens

pytestmark = pytest.mark.slow
SUBRUN = "da-grid"


@pytest.fixture
def given(tmp_path):
    """A run of two layers, each of whose matrices is decomposed, and tokens of seven batches."""
    return write_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=13)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "found" / "dataset_attributions" / "run" / SUBRUN


@pytest.fixture
def worker(given, tmp_path):
    """Run one worker of the grid to its end, or stop it after so many batches."""

    def worker(rank, world_size, shard, n_shards, after=None, model=None, **data):
        place = {"rank": rank, "world_size": world_size, "target_shard": shard, "target_shards": n_shards, **data}
        settings = {"data": place, "model": model, "subrun_id": SUBRUN, "commit_batches": 1}
        if after is not None:
            return stop(after, *given, tmp_path / "found", **settings)
        return work(*given, tmp_path / "found", **settings).folder

    return worker


@pytest.fixture
def trainer(given, tmp_path):
    """Run a trainer of four processes and two target shards; exit codes, and what they said."""

    def trainer(signals=None, n_shards=2, **work):
        port, logs = free_port(), [tmp_path / f"log_{rank}" for rank in range(4)]
        writer = {"out_dir": tmp_path / "found", "subrun_id": SUBRUN, "commit_batches": 1}
        settings = {"data": {"target_shards": n_shards}, "writer": writer, **work}
        workers = []
        for rank, log in enumerate(logs):
            log.write_text("")
            sent = (signals or {}).get(rank, {})
            workers.append(start(Work(*given, log, ddp=(rank, 4, port), signals=sent, **settings)))
        for one in workers:
            one.join(120)
        hanging = [one for one in workers if one.exitcode is None]
        for one in hanging:
            one.kill()
        said = [log.read_text() for log in logs]
        assert not hanging, said
        assert "Traceback" not in "".join(said), said
        return [one.exitcode for one in workers], said

    return trainer


def expected(given, tmp_path, **model):
    return DatasetAttributionStorage.load(work(*given, tmp_path / "expected", model=model).path)


def assert_found(folder, right):
    found = DatasetAttributionStorage.load(folder / "dataset_attributions.pt")
    for kind in ("embed_attr", "regular_attr", "unembed_attr", "embed_unembed_attr"):
        assert len(getattr(found, kind)), kind
    assert_same(found, right, 1e-6)
    assert found.provenance["coverage"]["complete"]
    assert found.provenance["n_tokens"] == right.provenance["n_tokens"]
    return found


def test_two_shards_whose_workers_are_stopped_and_started_again_as_others(given, worker, folder, tmp_path):
    """The first shard by one worker, then by two; the second by two, of whom one is stopped, then by one."""
    worker(0, 1, 0, 2, after=2)
    worker(0, 2, 1, 2)
    worker(1, 2, 1, 2, after=1)
    assert [(shard.n_done, len(shard.workers)) for shard in status(folder).shards] == [(2, 1), (5, 2)]
    with pytest.raises(StorageError, match=r"target_shard_0: of 7 batches 5 \(2-6\) are missing"):
        merge_harvest(folder)
    with pytest.raises(StorageError, match=r"target shard 0 lacks 3 \(2-6 step 2\)\. Let"):
        merge_harvest(folder, allow_partial=True)
    worker(0, 2, 0, 2)
    worker(1, 2, 0, 2, after=1)
    worker(0, 1, 1, 2)
    worker(1, 2, 0, 2)
    assert [one.number for one in begun_generations(folder)] == [2, 2]
    merge_harvest(folder)
    found = assert_found(folder, expected(given, tmp_path))
    lines = found.provenance["generations"]
    assert [(line["target_shard"], line["generation"], line["world_size"]) for line in lines] == [
        *[(0, 1, 1), (0, 2, 2)],
        *[(1, 1, 2), (1, 2, 1)],
    ]


def test_a_trainer_of_two_by_two_that_is_stopped_and_goes_on_with_others(given, worker, trainer, folder, tmp_path):
    """Four processes, of which one is killed; then two workers of one shard; then four processes again."""
    codes, said = trainer({2: {1: int(signal.SIGKILL)}})
    assert codes == [2, 2, -9, 2]
    assert "worker 1 of target shard 1" in said[3] or "has ended without a word" in said[3]
    assert [shard.n_done for shard in status(folder).shards] == [2, 2]
    worker(0, 1, 1, 2, after=1)
    codes, said = trainer(action="compute")
    assert codes == [0, 0, 0, 0]
    assert "continuing, with 2 of 7 batches of target shard 0, 3 of 7 batches of target shard 1 done" in said[0]
    # Sums of a shard are reduced over its own processes; of the second, batches in frozen parts are not among them.
    assert ["computed from 104 tokens" in text for text in said] == [True, False, True, False]
    assert_found(folder, expected(given, tmp_path))


def test_processes_that_do_not_divide_among_the_shards(trainer, folder):
    codes, said = trainer(n_shards=3)
    assert codes == [2, 2, 2, 2]
    assert all("data.target_shards is 3, and the trainer's 4 processes do not divide among them" in s for s in said)
    assert not folder.exists()


def test_more_shards_than_there_are_inputs_are_refused_before_a_folder_is_made(worker, folder):
    with pytest.raises(ConfigurationError, match=r"data\.target_shards is 99, too many for the 9 inputs"):
        worker(0, 1, 0, 99, model={"metrics": "attr"})
    assert not folder.exists()


def test_three_shards_of_attr_alone(given, worker, folder, tmp_path):
    """One metric, and targets that are found by their causal importance."""
    model = {"metrics": "attr", "alive_batches": 3, "ci_threshold": 0.05}
    for shard in range(3):
        worker(0, 2, shard, 3, model=model)
        worker(1, 2, shard, 3, model=model)
    merge_harvest(folder)
    found = assert_found(folder, expected(given, tmp_path, **model))
    assert any(found.provenance["not_targets"].values())
    assert not found.regular_attr_abs
