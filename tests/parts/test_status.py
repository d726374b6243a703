import os
from dataclasses import replace

import pytest

from lit_attr.errors import StorageError
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.status import status
from lit_attr.parts.worker_record import WorkerRecord
from tests.parts.harvests import begin, commit, complete_harvest

BEGAN = 1_000_000.0


@pytest.fixture
def running(tmp_path):
    """Three workers of ten batches: one done, one at half, one that has committed nothing; 100 tokens a batch."""
    generation = begin(tmp_path, 3)
    os.utime(generation.path, (BEGAN, BEGAN))
    commit(generation, 1, started=BEGAN, committed=BEGAN + 30, n_tokens=300)
    # Continued with one of its four; two more in 40 seconds.
    commit(generation, 0, [0, 3, 6], started=BEGAN + 100, committed=BEGAN + 140, n_before=1, n_tokens=300)
    return tmp_path


def test_figures(running):
    found = status(running)
    assert (found.n_done, found.n_batches, found.n_frozen, found.n_merged) == (6, 10, 0, None)
    assert [(w.n_done, w.n_batches) for w in found.workers] == [(3, 4), (3, 3), (0, 3)]
    assert found.tokens_per_batch == 100
    assert [w.batches_per_second for w in found.workers] == [2 / 40, 3 / 30, 0]
    assert found.tokens_per_second == 100 * 2 / 40, "of those that are not done"
    assert found.seconds_left == float("inf"), "of one worker nothing is known"
    assert [w.silent_for(BEGAN + 200) for w in found.workers] == [60, 0, 200]


def test_seconds_left_are_those_of_the_slowest_worker(running):
    commit(begin(running, 3), 2, [2], started=BEGAN, committed=BEGAN + 50, n_tokens=100)
    assert status(running).seconds_left == pytest.approx(max(1 / (2 / 40), 2 / (1 / 50)))
    for rank in range(3):
        commit(begin(running, 3), rank)
    found = status(running)
    assert (found.n_done, found.seconds_left, found.tokens_per_second) == (10, 0, 0)


def test_workers_that_have_ended_early(running):
    """Not those that have committed since, or are done; a later generation takes over from all."""
    generation = begin(running, 3)
    record = replace(WorkerRecord.of_this_process(), started=BEGAN + 100)

    def ended(state, when):
        for rank in range(3):
            replace(record, state=state, ended=when, reason="why").write(generation.record_path(rank))
        return [worker.has_ended_early for worker in status(running).workers]

    assert ended("working", None) == ended("done", BEGAN + 150) == [False, False, False]
    assert ended("stopped", BEGAN + 150) == ended("requeued", BEGAN + 150) == [True, False, True]
    assert ended("failed", BEGAN + 150) == [True, True, True]
    assert ended("failed", BEGAN + 135) == [False, True, True]
    assert [w.silent_for(BEGAN + 200) for w in status(running).workers] == [60, 0, 100]
    begin(running, 2)
    assert [worker.record for worker in status(running).workers] == [None, None]
    assert not list((running / "worker_states").glob("*.json"))


def test_frozen_batches_count(running):
    generation = begin(running, 2)
    found = status(running)
    assert (found.n_done, found.n_frozen, found.tokens_per_batch) == (6, 6, 0)
    assert [(w.n_done, w.n_batches) for w in found.workers] == [(0, 2), (0, 2)]
    commit(generation, 0)
    assert status(running).n_done == 8


def test_workers_without_batches_are_done(tmp_path):
    generation = begin(tmp_path, 4, 2)
    assert [w.silent_for(1e12) for w in status(tmp_path).workers[2:]] == [0, 0]
    for rank in (0, 1):
        commit(generation, rank)
    assert status(tmp_path).seconds_left == 0


def test_clocks_that_went_back(tmp_path):
    commit(begin(tmp_path, 1), 0, [0], started=10.0, committed=5.0)
    assert status(tmp_path).seconds_left >= 0


def test_merged_harvests_that_grew(tmp_path):
    complete_harvest(tmp_path)
    merge_harvest(tmp_path)
    assert status(tmp_path).n_merged == 10
    begin(tmp_path, 3, 12)
    found = status(tmp_path)
    assert (found.n_merged, found.n_done, found.n_batches) == (10, 10, 12)


def test_no_harvest_and_damaged_ones(tmp_path):
    with pytest.raises(StorageError, match=r"cannot read .*plan\.json"):
        status(tmp_path)
    generation = begin(tmp_path, 2)
    generation.path.unlink()
    with pytest.raises(StorageError, match="the harvest has not begun"):
        status(tmp_path)
    generation = begin(tmp_path, 2)
    commit(generation, 0)
    (tmp_path / "dataset_attributions.pt").write_text("no")
    with pytest.raises(StorageError, match=r"attributions\.pt is damaged, or no result of this harvest"):
        status(tmp_path)
    generation.part_path(0).write_text("no")
    with pytest.raises(StorageError, match=r"rank_0\.pt is truncated, damaged, or no part"):
        status(tmp_path)
