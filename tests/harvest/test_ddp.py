"""Trainers of two processes: their results, stops, continuations and mistakes."""

import signal

import numpy as np
import pytest
import torch

from benchmarks.workers import Work, free_port, start
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.parts.generations import begun_generation
from lit_attr.parts.ledger import read_ledger
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.plan import Plan
from lit_attr.parts.software import software
from lit_attr.parts.status import status
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.harvest.runs import assert_same, small_run, stop, work
from tests.toys import write_tokens

pytestmark = pytest.mark.slow
SUBRUN = "da-one"
TORCH = torch.__version__.partition("+")[0]
INTERRUPTED = "the same command continues"


@pytest.fixture
def given(tmp_path):
    """A run, and tokens of seven batches, the last of them smaller."""
    return small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=13)


@pytest.fixture
def expected(given, tmp_path):
    return DatasetAttributionStorage.load(work(*given, tmp_path / "expected").path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "found" / "dataset_attributions" / "run" / SUBRUN


@pytest.fixture
def two(given, tmp_path):
    """Run a trainer of two processes; their exit codes and what they said."""

    def two(
        signals=None,
        model=({}, {}),
        tokens=given[1],
        data=None,
        subrun_id=SUBRUN,
        commit_batches=1,
        actions=None,
        **writer,
    ):
        port, logs = free_port(), [tmp_path / f"log_{rank}" for rank in range(2)]
        writer |= {"out_dir": tmp_path / "found", "subrun_id": subrun_id, "commit_batches": commit_batches}
        workers = []
        for rank, log in enumerate(logs):
            log.write_text("")
            its_data = data[rank] if isinstance(data, tuple) else data or {}
            its_tokens = tokens[rank] if isinstance(tokens, tuple) else tokens
            settings = {"data": its_data, "writer": writer, "model": model[rank], "ddp": (rank, 2, port)}
            sent = (signals or {}).get(rank, {})
            done = (actions or {}).get(rank)
            workers.append(start(Work(given[0], its_tokens, log, **settings, signals=sent, action=done)))
        for worker in workers:
            worker.join(60)
        hanging = [worker for worker in workers if worker.exitcode is None]
        for worker in hanging:
            worker.kill()  # they would take a SIGTERM for the wish to stop after the next batch
        assert not hanging
        said = [log.read_text() for log in logs]
        assert "Traceback" not in "".join(said)
        return [worker.exitcode for worker in workers], said

    return two


def assert_found(folder, expected):
    found = DatasetAttributionStorage.load(folder / "dataset_attributions.pt")
    assert_same(found, expected, 1e-6)
    assert found.embed_token_count.equal(expected.embed_token_count)
    assert found.provenance["coverage"]["complete"]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("ranks", [[0], [1], [0, 1]])
def test_stopped_and_continued(two, expected, folder, number, ranks):
    """Both stop after the step in which either was told to, with everything committed."""
    codes, said = two({rank: {1: int(number)} for rank in ranks})
    assert codes == [2, 2]
    for rank in range(2):
        name = number.name if rank in ranks else "a signal to another process"
        errors = [line for line in said[rank].splitlines() if "error:" in line]
        counts = f"worker {rank} has committed 2 of {4 - rank} batches"
        assert errors == [f"lit-attr: error: stopped by {name}: {counts} in {folder}; {INTERRUPTED}"]
    assert status(folder).n_done == 4
    codes, said = two()
    assert codes == [0, 0]
    assert "continuing, with 4 of 7 batches done" in said[0]
    assert_found(folder, expected)


def test_a_signal_without_commits_before(two, expected, folder):
    assert two({1: {0: int(signal.SIGUSR1)}}, commit_batches=None)[0] == [2, 2]
    assert status(folder).n_done == 2
    assert two({0: {1: int(signal.SIGUSR1)}}, commit_batches=None)[0] == [2, 2]
    assert status(folder).n_done == 6
    assert two(commit_batches=None)[0] == [0, 0]
    assert_found(folder, expected)


def test_continued_by_one_process(two, given, expected, folder, tmp_path):
    two({1: {1: int(signal.SIGUSR1)}})
    assert work(*given, tmp_path / "found", subrun_id=SUBRUN).folder == folder
    assert_found(folder, expected)


def test_continuing_one_process(two, given, expected, folder, tmp_path):
    stop(3, *given, tmp_path / "found", subrun_id=SUBRUN)
    assert two({1: {0: int(signal.SIGUSR1)}})[0] == [2, 2]
    assert status(folder).n_done == 5
    assert two()[0] == [0, 0]
    assert_found(folder, expected)


def test_continuing_independent_workers(two, given, expected, folder, tmp_path):
    """As many of them: every process goes on with its own part, and the first has nothing left to do."""
    work(*given, tmp_path / "found", subrun_id=SUBRUN, data={"rank": 0, "world_size": 2})
    assert two({1: {1: int(signal.SIGUSR1)}})[0] == [2, 2]
    assert [worker.n_done for worker in status(folder).workers] == [4, 2]
    assert two(actions={1: "delete"})[0] == [0, 0]
    assert_found(folder, expected)


def test_the_second_process_commits_though_the_first_has_nothing_left(two, given, folder, tmp_path):
    work(*given, tmp_path / "found", subrun_id=SUBRUN, data={"rank": 0, "world_size": 2})
    codes, _ = two({1: {1: int(signal.SIGKILL)}}, commit_batches=1)
    assert codes == [2, -9]
    assert [worker.n_done for worker in status(folder).workers] == [4, 1]


def test_everything_committed_and_nothing_written(two, expected, folder):
    two()
    (folder / "dataset_attributions.pt").unlink()
    assert two()[0] == [0, 0]
    assert_found(folder, expected)


@pytest.mark.parametrize("commit_batches", [1, 2])
def test_parts_that_are_deleted_before_the_reduction(two, expected, folder, commit_batches):
    assert two(commit_batches=commit_batches, actions={0: "delete", 1: "delete"})[0] == [0, 0]
    assert_found(folder, expected)


def test_a_process_without_a_batch(two, given, folder, tmp_path):
    expected = DatasetAttributionStorage.load(work(*given, tmp_path / "expected", data={"n_batches": 1}).path)
    assert two(data={"n_batches": 1})[0] == [0, 0]
    assert_found(folder, expected)
    assert [path.name for path in (folder / "worker_states").glob("*.pt")] == ["dataset_attributions_rank_0.pt"]


def test_found_without_a_name(two, expected, tmp_path):
    two({0: {1: int(signal.SIGUSR1)}}, subrun_id=None)
    assert two(subrun_id=None)[0] == [0, 0]
    (found,) = (tmp_path / "found" / "dataset_attributions" / "run").iterdir()
    assert_found(found, expected)


def test_a_process_that_is_killed(two, expected, folder):
    codes, said = two({1: {2: int(signal.SIGKILL)}})
    assert codes == [2, -9]
    assert "has ended without a word: its connection was closed; the same command continues" in said[0]
    assert status(folder).n_done == 4
    assert [worker.record.state for worker in status(folder).workers] == ["stopped", "working"]
    assert two()[0] == [0, 0]
    assert_found(folder, expected)


def test_a_full_disk(two, expected, folder):
    """Of both processes: nothing is left of the harvest. Of one: what the other has committed counts."""
    assert two(actions={0: "full disk", 1: "full disk"})[0] == [2, 2]
    assert not folder.exists()
    codes, said = two(actions={1: "full disk"})
    assert codes == [2, 2]
    assert all("No space left on device" in text and "rank_1.pt" in text for text in said)
    assert two()[0] == [0, 0]
    assert_found(folder, expected)


def test_a_mistake_in_the_settings_of_one_process(two, tmp_path):
    """A file that only one machine has."""
    codes, said = two(model=({}, {"harvest_db": tmp_path / "nothing.db"}))
    assert codes == [2, 2]
    assert all("no harvest database at" in text for text in said)


def test_processes_that_would_harvest_different_things(two, given, folder, tmp_path):
    """Each exited with 0, and the sums were those of no harvest."""
    many = [write_tokens(tmp_path / name, n_rows=2100) for name in ("one.npy", "other.npy")]
    rows = np.load(many[1])
    rows[1, 3] += 1  # none of the rows that the version before looked at
    np.save(many[1], rows)
    for settings, difference in (
        ({"data": ({}, {"batch_size": 3})}, "batch_size: process 0 has 2, process 1 has 3"),
        ({"data": ({"n_batches": 5}, {"n_batches": 6})}, "n_batches: process 0 has 5, process 1 has 6"),
        ({"tokens": tuple(many)}, "data_digest: process 0 has"),
        ({"model": ({}, {"alive_batches": 1})}, "alive_batches: process 0 has None, process 1 has 1"),
        ({"actions": {1: "other versions"}}, f"version of torch: process 0 has '{TORCH}', process 1 has '2.0.0'"),
    ):
        codes, said = two(**settings)
        assert codes == [2, 2]
        assert all("the processes of this harvest have different settings or data" in text for text in said)
        assert all(difference in text for text in said), said
    assert not folder.exists()


def test_other_versions_that_are_allowed_are_recorded(two, expected, folder):
    assert two(actions={1: "other versions"}, allow_other_versions=True)[0] == [0, 0]
    assert_found(folder, expected)
    mine = software()
    assert list(mine) == ["lit_attr", "torch"]
    assert Plan.load(folder).software == mine
    by = {rank: read_ledger(begun_generation(folder).part_path(rank)).software for rank in range(2)}
    assert by == {0: [mine], 1: [{**mine, "torch": "2.0.0"}]}
    result = DatasetAttributionStorage.load(folder / "dataset_attributions.pt")
    assert result.provenance["software"] == [*by[0], *by[1]]


def test_a_damaged_part_of_one_process(two, folder):
    two({0: {1: int(signal.SIGUSR1)}})
    part = folder / "worker_states" / "dataset_attributions_rank_1.pt"
    part.write_bytes(part.read_bytes()[:-100])
    codes, said = two()
    assert codes == [2, 2]
    assert all(str(part) in text for text in said)


def test_independent_workers_are_no_trainers_of_two(two):
    codes, said = two(data={"rank": 0, "world_size": 2})
    assert codes == [2, 2]
    assert all("data.world_size is 2, for independent workers of one device each, but the trainer" in t for t in said)


def test_sums_of_two_workers_and_two_processes(two, given, expected, folder, tmp_path):
    """Parts of three generations: independent workers, two processes, independent workers."""
    work(*given, tmp_path / "found", subrun_id=SUBRUN, data={"rank": 2, "world_size": 3})
    two({0: {0: int(signal.SIGUSR1)}})
    for rank in range(4):
        work(*given, tmp_path / "found", subrun_id=SUBRUN, data={"rank": rank, "world_size": 4})
    merge_harvest(folder)
    assert_found(folder, expected)


def test_ranks_of_the_trainer(given):
    class Trainer:
        global_rank, world_size = 1, 2

    data = TokenDataModule(given[1], batch_size=2)
    data.trainer = Trainer()
    assert data.worker() == (1, 2)
    data = TokenDataModule(given[1], batch_size=2, rank=1, world_size=3)
    assert data.worker() == (1, 3)
    data.trainer = Trainer()
    with pytest.raises(ConfigurationError, match=r"use --trainer\.devices 1 .*, or drop data\.rank"):
        data.worker()
