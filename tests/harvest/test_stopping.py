"""Harvests that end once they are settled: what they have then, and when they are looked at."""

import signal

import numpy as np
import pytest
from lightning.pytorch import Callback, Trainer

from benchmarks.workers import QUIET, Work, free_port, start
from lit_attr.cli.main import main
from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.harvest import stopping
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.stopping import Looks, StopRule
from lit_attr.parts.freeze import settled_generation
from lit_attr.parts.generations import newest_generations
from lit_attr.parts.looks import Look, read_looks, record_look
from lit_attr.parts.plan import Plan
from lit_attr.parts.status import status
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.verify import verify
from tests.harvest.runs import assert_same, small_run, stop, work
from tests.toys import write_tokens

SUBRUN = "da-one"
SETTLED = {"stop_when": "settled", "stop_error": 0.5}
N_BATCHES = 20


class Steps(Callback):
    """Notes the batches of a trainer."""

    def __init__(self):
        self.ids = []

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, *_):
        self.ids.append(batch.batch_id)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    return small_run(folder / "spd-s-toytoy00"), write_tokens(folder / "tokens.npy", n_rows=2 * N_BATCHES)


@pytest.fixture(scope="module")
def of_eight(given, tmp_path_factory):
    """What a harvest of eight batches has."""
    return load(work(*given, tmp_path_factory.mktemp("eight"), data={"n_batches": 8}).path)


@pytest.fixture
def looked_early(monkeypatch):
    """First looks after one batch: sources have standard errors from the fourth look on."""
    monkeypatch.setattr(stopping, "_FIRST", 1)


def load(path):
    return DatasetAttributionStorage.load(path)


def assert_of_eight(path, of_eight):
    found = load(path)
    assert_same(found, of_eight, 1e-6)
    for name in ("coverage", "data_shape", "data_digest"):
        assert found.provenance[name] == of_eight.provenance[name]
    assert "coverage: all 8 batches" in verify(path)


def test_it_ends_with_the_first_batches_and_grows_later(given, of_eight, looked_early, tmp_path, capsys):
    settings = {"model": SETTLED, "subrun_id": SUBRUN}
    writer = work(*given, tmp_path, **settings)
    assert_of_eight(writer.path, of_eight)
    looks = read_looks(writer.folder)
    assert [look.n_batches for look in looks] == [1, 2, 4, 8]
    assert [look.is_settled for look in looks] == [False, False, False, True]
    state = status(writer.folder)
    assert (state.n_done, state.n_batches, state.is_settled, state.last_look) == (8, 8, True, looks[-1])
    assert main(["status", str(writer.folder)]) == 0
    assert "\n  settled     after 8 batches " in capsys.readouterr().out

    steps = Steps()
    before = load(writer.path).provenance
    other = {**settings, "model": {**SETTLED, "engine": "autograd"}}
    again = work(*given, tmp_path, steps, **other)  # nothing more is done, and the result is written again
    assert [n for n in steps.ids if n >= 0] == []
    assert_of_eight(again.path, of_eight)
    assert load(again.path).provenance == before

    stricter = work(*given, tmp_path, model={**SETTLED, "stop_error": 0.3}, subrun_id=SUBRUN)
    assert [look.n_batches for look in read_looks(stricter.folder)] == [1, 2, 4, 8, 16]
    assert status(stricter.folder).n_batches == 16

    whole = work(*given, tmp_path, subrun_id=SUBRUN)  # without the rule, all batches
    assert_same(load(whole.path), load(work(*given, tmp_path / "whole").path), 1e-6)
    assert not status(whole.folder).is_settled


def test_a_kill_between_a_look_and_the_end_changes_nothing(given, of_eight, looked_early, tmp_path, monkeypatch):
    def killed(*_):
        if read_looks(tmp_path / "dataset_attributions" / "s-toytoy00" / SUBRUN)[-1].is_settled:
            raise StorageError("killed")

    settings = {"model": SETTLED, "subrun_id": SUBRUN}
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "end_settled", killed)
        with pytest.raises(StorageError, match="killed"):
            work(*given, tmp_path, **settings)
    steps = Steps()
    assert_of_eight(work(*given, tmp_path, steps, **settings).path, of_eight)
    assert [n for n in steps.ids if n >= 0] == []


def test_what_others_commit_meanwhile_is_not_lost(given, looked_early, tmp_path):
    """Those who end a harvest have seen six batches, and another trainer has committed two more since."""
    settings = {"model": SETTLED, "subrun_id": SUBRUN}
    folder = stop(8, *given, tmp_path, subrun_id=SUBRUN)
    newest = newest_generations(folder, Plan.load(folder))[0]
    with pytest.raises(StorageError, match="continued by others while it was ended"):
        settled_generation(newest, 6, "digest")
    assert [path.name for path in (folder / "worker_states").glob("*.pt")] == ["dataset_attributions_rank_0.pt"]
    assert load(work(*given, tmp_path, **settings).path).provenance["coverage"]["n_batches"] == 9


def test_looks_go_on_where_a_harvest_was_stopped(given, of_eight, looked_early, tmp_path):
    settings = {"model": SETTLED, "subrun_id": SUBRUN}
    folder = stop(5, *given, tmp_path, **settings)
    assert [look.n_batches for look in read_looks(folder)] == [1, 2, 4]
    assert_of_eight(work(*given, tmp_path, **settings).path, of_eight)


def test_a_look_that_a_kill_prevents_is_made_later(given, looked_early, tmp_path, monkeypatch):
    def killed(*_):
        raise StorageError("killed")

    settings = {"model": SETTLED, "subrun_id": SUBRUN}
    folder = stop(7, *given, tmp_path, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "record_look", killed)
        with pytest.raises(StorageError, match="killed"):
            work(*given, tmp_path, **settings)
    assert [look.n_batches for look in read_looks(folder)] == [1, 2, 4]
    writer = work(*given, tmp_path, **settings)
    assert [look.n_batches for look in read_looks(folder)] == [1, 2, 4, 9]
    assert "coverage: all 9 batches" in verify(writer.path)


@pytest.mark.slow
def test_a_process_that_was_ahead_is_not_looked_at_alone(given, tmp_path):
    """The first has done 40 batches of its own and the second 10: they are looked at once both have done 40."""
    tokens = write_tokens(tmp_path / "tokens.npy", n_rows=100)
    data, model = {"batch_size": 1}, {"stop_when": "settled", "stop_error": 0.5}
    writer = {"out_dir": tmp_path, "subrun_id": SUBRUN}
    for rank, n_batches in ((0, 40), (1, 10)):  # independent workers, whose parts a trainer continues
        stopped = {"data": {**data, "rank": rank, "world_size": 2}, "signals": {n_batches - 1: signal.SIGTERM}}
        worker = start(Work(given[0], tokens, tmp_path / f"stopped_{rank}", writer=writer, **stopped))
        worker.join(60)
    port, workers = free_port(), []
    for rank in range(2):
        settings = {"data": data, "writer": writer, "model": model, "ddp": (rank, 2, port)}
        workers.append(start(Work(given[0], tokens, tmp_path / f"log_{rank}", **settings)))
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0], (tmp_path / "log_0").read_text()
    (look,) = read_looks(tmp_path / "dataset_attributions" / "s-toytoy00" / SUBRUN)
    assert look.n_batches == 80
    assert look.is_settled


def test_without_being_settled_all_batches_are_done(given, looked_early, tmp_path):
    writer = work(*given, tmp_path, model={"stop_when": "settled", "stop_error": 1e-6})
    assert load(writer.path).provenance["coverage"]["batches"] == [[0, N_BATCHES - 1, 1]]
    assert [look.n_batches for look in read_looks(writer.folder)] == [1, 2, 4, 8, 16]


def test_rows_in_the_order_of_the_file_are_no_sample(given, looked_early, tmp_path, caplog):
    said = "the first batches no sample of the rest"
    work(*given, tmp_path / "random", model=SETTLED)
    assert said not in caplog.text
    work(*given, tmp_path / "file", model=SETTLED, data={"order": "file"})
    assert said in caplog.text


def test_when_looks_are_due(given, tmp_path):
    tmp_path = stop(1, *given, tmp_path)
    rule = StopRule.of("settled", None, uncertainty=True)
    looks = Looks(rule, tmp_path, n_batches=300)
    assert [n for n in range(320) if looks.due(n)] == list(range(64, 300))
    record_look(tmp_path, Look(70, 0.975, 10, 5, 0, None, share_asked=0.95, error_asked=0.05))
    looks = Looks(rule, tmp_path, n_batches=300)
    assert [n for n in range(320) if looks.due(n)] == list(range(128, 300))
    assert not Looks(rule, tmp_path, n_batches=64).due(64)


def test_what_is_settled():
    def look(n_separated, relative_error, n_targets=100):
        return Look(64, 0.975, 10, n_targets, n_separated, relative_error, share_asked=0.95, error_asked=0.05)

    assert [look(*found).is_settled for found in ((95, 0.5), (94, 0.5), (0, 0.049), (0, 0.05), (0, None))] == [
        *(True, False, True, False, False)
    ]
    assert not look(0, None, n_targets=0).is_settled


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"stop_error": 0.1}, "does nothing without model.stop_when"),
        ({**SETTLED, "uncertainty": False}, "needs standard errors"),
        ({**SETTLED, "stop_error": 0.0}, "above 0 and below 1, found 0"),
    ],
)
def test_mistakes(given, model, message):
    with pytest.raises(ConfigurationError, match=message):
        AttributionHarvester(given[0], **model)


def test_looks_need_one_trainer_and_a_writer(given, tmp_path):
    with pytest.raises(ConfigurationError, match="independent workers know nothing of each other"):
        work(*given, tmp_path, model=SETTLED, subrun_id=SUBRUN, data={"rank": 0, "world_size": 2})
    with pytest.raises(ConfigurationError, match="needs a StorageWriter"):
        Trainer(**QUIET).predict(AttributionHarvester(given[0], **SETTLED), datamodule=TokenDataModule(given[1]))


def test_a_process_that_is_ahead_waits(given):
    data = TokenDataModule(given[1], 2)
    data.assign(np.array([4, 6]), 4, lead=1)
    assert [batch.batch_id for batch in data.predict_dataloader()] == [-1, 4, 6, -1]
    begun = iter(data.predict_dataloader())
    assert next(begun).batch_id == -1
    data.end()
    assert list(begun) == []


@pytest.mark.slow
@pytest.mark.parametrize(("n_processes", "shards"), [(2, 1), (2, 2), (4, 4)])
def test_processes_end_with_the_same_batch(given, tmp_path, n_processes, shards):
    """By the product's own times: after 64 batches, each of which is a group, whatever shards there are."""
    tokens, port, workers = write_tokens(tmp_path / "tokens.npy", n_rows=100), free_port(), []
    data = {"batch_size": 1, "target_shards": shards}
    writer = {"out_dir": tmp_path / "found", "subrun_id": SUBRUN}
    for rank in range(n_processes):
        log = tmp_path / f"log_{rank}"
        settings = {"data": data, "writer": writer, "model": SETTLED, "ddp": (rank, n_processes, port)}
        workers.append(start(Work(given[0], tokens, log, **settings)))
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * n_processes, (tmp_path / "log_0").read_text()
    folder = tmp_path / "found" / "dataset_attributions" / "s-toytoy00" / SUBRUN
    found = load(folder / "dataset_attributions.pt")
    expected = work(given[0], tokens, tmp_path, data={"batch_size": 1, "n_batches": 64}).path
    assert_same(found, load(expected), 1e-6)
    assert found.provenance["coverage"] == {"n_batches": 64, "batches": [[0, 63, 1]], "complete": True}
    assert found.standard_errors.n_all_groups["attr"] == 64
    assert status(folder).is_settled
