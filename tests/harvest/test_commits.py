"""When a process commits, and what keeps it from doing so."""

import errno
import os
import time

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from benchmarks.workers import Work, start
from lit_attr.errors import ConfigurationError, DataError, StorageError
from lit_attr.harvest import commits as module
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.harvest.commits import Commits
from lit_attr.harvest.writer import StorageWriter
from lit_attr.parts.freeze import current_generation
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.part import read_part
from lit_attr.parts.plan import Plan
from lit_attr.parts.status import status
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.graph import Topology
from lit_attr.topology.words import PLAN_FILE
from tests.harvest.runs import Signal, small_run, stop, work
from tests.sums import layout_of
from tests.toys import write_tokens

TOPOLOGY = Topology(
    {"0.mlp.up": 2},
    {"0.mlp.up": ("embed",), "output": ("embed",)},
    vocab_size=3,
    d_model=2,
    inputs={"0.mlp.up": "0.mlp.up", "output": "output"},
    widths={"0.mlp.up": 2, "output": 2},
)
PLAN = Plan({"batch_size": 2}, 6)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def new(tmp_path):
    """A worker, as it begins."""

    def new(rank=0, world_size=1, n_batches=6, minutes=10.0, batches=None):
        folder = tmp_path / "da-one"
        folder.mkdir(exist_ok=True)
        if not (folder / PLAN_FILE).exists():
            PLAN.publish(folder)
        generation = current_generation(folder, PLAN, world_size, n_batches)
        sums = AttributionSums()
        sums.allocate(layout_of(TOPOLOGY), torch.float32, "cpu")
        found = Commits(generation, rank, minutes, batches)
        found.restore(sums)
        return found, sums

    return new


def do(commits, sums, *batch_ids):
    for batch_id in map(int, batch_ids):

        def contribute(recent, batch_id=batch_id):
            recent.logit_sq[0] += 10**batch_id
            recent.token_count[0] += 1
            recent.n_tokens.add_(1)

        sums.update(contribute)
        commits.add(batch_id)


def in_part(commits):
    """Batches by the ledger, and by what was added."""
    sums, ledger = read_part(commits.path, layout_of(TOPOLOGY))
    digits = str(int(sums.logit_sq[0]))[::-1]
    assert set(digits) <= {"0", "1"}, "a batch counts twice"
    assert [i for i, digit in enumerate(digits) if digit == "1"] == ledger.ids.tolist()
    assert ledger.n_tokens == int(sums.n_tokens) == len(ledger.ids)
    return ledger.ids.tolist()


def test_minutes(new, clock):
    commits, _ = new(minutes=2.0)
    assert not commits.due()
    clock[0] += 120
    assert not commits.due()
    clock[0] += 0.1
    assert commits.due()
    commits.rest(1.0)
    assert not commits.due()
    clock[0] += 120.1
    assert commits.due()


@pytest.mark.parametrize("seconds", [2.0, 30.0])
def test_commits_take_at_most_two_percent(new, clock, seconds):
    commits, _ = new(minutes=0.5)
    clock[0] += 31
    assert commits.due()
    begin = clock[0]
    for _ in range(3):
        clock[0] += seconds  # the commit itself
        commits.rest(seconds)
        while not commits.due():
            clock[0] += 0.25
    assert 3 * seconds <= 0.02 * (clock[0] - begin)
    assert 3 * seconds > 0.019 * (clock[0] - begin)


def test_batches_instead_of_minutes(new, clock):
    commits, sums = new(minutes=1.0, batches=2)
    clock[0] += 1000
    assert not commits.due()
    do(commits, sums, 0)
    assert not commits.due()
    do(commits, sums, 1)
    assert commits.due()
    commits.commit(sums)
    assert not commits.due()


@pytest.mark.parametrize(
    "settings",
    [{"commit_minutes": 0.0}, {"commit_minutes": -1.0}, {"commit_batches": 0}, {"patience_minutes": float("nan")}],
)
def test_settings_that_are_not_positive(settings):
    with pytest.raises(ConfigurationError, match=r"must be (positive|at least 0\.1), found"):
        StorageWriter(**settings)


def test_what_is_left(new):
    commits, sums = new(rank=1, world_size=2)
    assert commits.remaining.tolist() == [1, 3, 5]
    do(commits, sums, 1, 3)
    assert commits.done.tolist() == [1, 3]
    commits.commit(sums)
    assert in_part(commits) == [1, 3]
    again, sums = new(rank=1, world_size=2)
    assert (again.remaining.tolist(), again.done.tolist()) == ([5], [1, 3])
    do(again, sums, 5)
    again.commit(sums)
    assert in_part(again) == [1, 3, 5]


def test_nothing_new_writes_nothing(new):
    commits, sums = new()
    commits.commit(sums)
    assert not commits.path.exists()
    do(commits, sums, 0)
    commits.commit(sums)
    before = commits.path.stat()
    commits.commit(sums)
    assert commits.path.stat() == before


def test_rates_leave_out_what_was_there_before(new):
    commits, sums = new()
    do(commits, sums, 0, 1)
    commits.commit(sums)
    before = time.time()
    commits, sums = new()
    do(commits, sums, 2)
    commits.commit(sums)
    _, ledger = read_part(commits.path, layout_of(TOPOLOGY))
    assert ledger.n_before == 2
    assert before <= ledger.started <= ledger.committed <= time.time()
    (worker,) = status(commits.generation.folder).workers
    assert (worker.n_done, worker.n_batches) == (3, 6)


def test_two_workers_of_one_rank(new):
    """The second to commit is refused, whichever began first, and again when it tries once more."""
    (first, first_sums), (second, second_sums) = new(), new()
    do(first, first_sums, 0)
    do(second, second_sums, 0, 1)
    second.commit(second_sums)
    for _ in range(2):
        with pytest.raises(StorageError, match=rf"{first.path} was changed by another process: is a second worker of"):
            first.commit(first_sums)
    do(second, second_sums, 2)
    second.commit(second_sums)
    assert in_part(second) == [0, 1, 2]
    third, sums = new()
    do(second, second_sums, 3)
    second.commit(second_sums)
    do(third, sums, 3)
    with pytest.raises(StorageError, match="was changed by another process"):
        third.commit(sums)
    assert in_part(second) == [0, 1, 2, 3]


@pytest.mark.parametrize("change", [{"world_size": 2}, {"n_batches": 7}])
@pytest.mark.parametrize("committed", [True, False])
def test_a_worker_of_an_older_generation(new, change, committed):
    old, old_sums = new()
    if committed:
        do(old, old_sums, 0)
        old.commit(old_sums)
    young, sums = new(**change)
    do(old, old_sums, 1)
    with pytest.raises(StorageError, match=r"has taken over from worker 0 of 1\. Nothing was written"):
        old.commit(old_sums)
    assert not old.path.exists()
    do(young, sums, *young.remaining)
    young.commit(sums)
    assert in_part(young) == young.generation.assigned(0).tolist()
    assert (0 in young.generation.assigned(0)) is not committed


def test_a_restart_sees_a_commit_between_ledger_and_sums(new, monkeypatch):
    """An old worker commits while a new one of its rank begins, which would add a batch again that is in its sums."""
    old, old_sums = new()
    do(old, old_sums, 0)
    old.commit(old_sums)
    restore = Commits.restore

    def late(commits, sums):
        do(old, old_sums, 1)
        old.commit(old_sums)
        restore(commits, sums)

    monkeypatch.setattr(Commits, "restore", late)
    with pytest.raises(StorageError, match="was changed by another process"):
        new()
    assert in_part(old) == [0, 1]


def test_a_part_that_is_gone_is_written_anew(new):
    commits, sums = new()
    do(commits, sums, 0)
    commits.commit(sums)
    commits.path.unlink()
    do(commits, sums, 1)
    commits.commit(sums)
    assert in_part(commits) == [0, 1]


def test_a_foreign_part_is_refused(new):
    commits, sums = new(rank=1, world_size=2)
    do(commits, sums, 1)
    commits.commit(sums)
    commits.path.rename(commits.generation.part_path(0))
    with pytest.raises(StorageError, match="is a foreign part: expected rank 0, found 1"):
        new(rank=0, world_size=2)


def test_sums_that_are_no_numbers_are_not_committed(new):
    commits, sums = new()
    do(commits, sums, 0)
    commits.commit(sums)
    sums.update(lambda recent: recent.logit_sq.fill_(np.nan))
    commits.add(1)
    with pytest.raises(ArithmeticError, match="no longer finite"):
        commits.commit(sums)
    assert in_part(commits) == [0]


@pytest.fixture
def given(tmp_path):
    return small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=10)


@pytest.mark.parametrize(("call", "n_before"), [("fsync", 0), ("fsync", 3), ("replace", 3), ("posix_fallocate", 3)])
def test_a_full_disk(given, tmp_path, monkeypatch, call, n_before):
    """Of five commits one fails; the same command continues when there is space again, or begins anew."""
    write_part = module.write_part
    written = []

    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(path, sums, ledger):
        if len(written) == n_before:
            with monkeypatch.context() as full:
                full.setattr(os, call, no_space)
                write_part(path, sums, ledger)
        write_part(path, sums, ledger)
        written.append(path)

    monkeypatch.setattr(module, "write_part", write)
    with pytest.raises(StorageError, match=r"cannot write .*_rank_0\.pt: .*No space left on device"):
        work(*given, tmp_path / "found", commit_batches=1)
    runs = tmp_path / "found" / "dataset_attributions" / "run"
    folders = list(runs.iterdir()) if n_before else []
    if n_before:
        assert status(folders[0]).n_done == n_before
        assert not list((folders[0] / "worker_states").glob("*.tmp"))
    else:
        assert not runs.exists(), "what was never committed leaves nothing behind"
    monkeypatch.undo()
    continued = work(*given, tmp_path / "found", commit_batches=1)
    assert continued.folder in (folders or runs.iterdir())
    found = DatasetAttributionStorage.load(continued.path)
    assert (found.n_tokens_processed, found.provenance["coverage"]["batches"]) == (80, [[0, 4, 1]])


@pytest.mark.parametrize(("change", "what"), [("in place", "changed"), ("another file", "replaced")])
def test_data_that_changes_meanwhile(given, tmp_path, change, what):
    """Nothing that may be of both versions is written: no part, and no result of parts that are."""
    run, tokens = given
    rows = np.load(tokens)
    rows[3, 3] = (rows[3, 3] + 1) % 11

    class Change(Callback):
        def on_predict_batch_end(self, *batch):
            if batch[4] == 2:
                np.save(tokens if change == "in place" else tmp_path / "new.npy", rows)

        def on_predict_epoch_end(self, *_):
            if change != "in place":
                (tmp_path / "new.npy").rename(tokens)

    with pytest.raises(DataError, match=rf"the data .*tokens\.npy was {what} after it was opened"):
        work(run, tokens, tmp_path / "found", Change(), commit_batches=1, subrun_id="da-x")
    folder = tmp_path / "found" / "dataset_attributions" / "run" / "da-x"
    assert status(folder).n_done == (2 if change == "in place" else 5)
    assert not (folder / "dataset_attributions.pt").exists()
    with pytest.raises(ConfigurationError, match="data_digest: the harvest has"):
        work(run, tokens, tmp_path / "found", subrun_id="da-x")


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(given, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o555)
    worker = start(Work(*given, tmp_path / "log", writer={"out_dir": tmp_path / "out"}, action="permissions"))
    worker.join(60)
    assert worker.exitcode == 2
    (line,) = [line for line in (tmp_path / "log").read_text().splitlines() if "error" in line]
    assert line.startswith(f"lit-attr: error: cannot create the folder {tmp_path / 'out'}")
    assert "Permission denied" in line


def test_slow_commits_are_rare(given, tmp_path, monkeypatch):
    """After one that takes a fifth of a second the next waits for ten."""
    write_part = module.write_part
    written = []

    def slow(*arguments):
        time.sleep(0.2)
        written.append(write_part(*arguments))

    monkeypatch.setattr(module, "write_part", slow)
    work(*given, tmp_path / "found", commit_minutes=1e-9)
    assert len(written) == 2, "the first, and that of the end"


def test_a_signal_during_a_commit(given, tmp_path, monkeypatch):
    """The commit is finished; the step after it is the last."""
    write_part = module.write_part

    def interrupted(*arguments):
        Signal(1).on_predict_batch_end(None, None, None, None, 0)
        write_part(*arguments)

    monkeypatch.setattr(module, "write_part", interrupted)
    folder = stop(99, *given, tmp_path / "found", commit_batches=2)
    assert status(folder).n_done == 3
    monkeypatch.undo()
    work(*given, tmp_path / "found")
    assert merge_harvest(folder).exists()
