"""Harvests that end before their first commit leave nothing behind; most mistakes are seen before a folder is made."""

import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch import Callback

from lit_attr.errors import ConfigurationError, DataError, InterruptedHarvestError, LitAttrError
from lit_attr.harvest import resume, writer
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.writer import StorageWriter
from lit_attr.parts.present_workers import Presence
from lit_attr.parts.status import status
from tests.harvest.runs import QUIET, small_run, stop, work
from tests.toys import write_tokens

INDEPENDENT = {"subrun_id": "da-x", "data": {"rank": 0, "world_size": 2}}


@pytest.fixture
def given(tmp_path):
    return small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=5)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "out"


class Send(Callback):
    """Sends this process a signal, in a hook before the first batch."""

    def __init__(self, number):
        self.number = number

    def on_predict_start(self, *_):
        os.kill(os.getpid(), self.number)


class Fail(Callback):
    def on_predict_batch_end(self, *_):
        raise KeyError


@pytest.mark.parametrize(
    ("model", "tokens", "trainer", "message"),
    [
        ({}, np.zeros((2, 9), np.int64), {}, "sequences of 9 tokens are longer than the model's context of 8"),
        ({}, np.array([[1, 2], [3, 4], [5, 99]]), {}, "batch 1, row 0, position 1: token id 99 is outside"),
        ({}, None, {"precision": "bf16-true"}, "trainer.precision 'bf16-true' is not supported"),
        ({"engine": "closed_form"}, None, {}, "model.engine closed_form: 2 edge blocks have no closed form"),
        (
            {},
            None,
            {"memory": 10},
            "each process of the harvest needs at least .* GB on cpu .*, where 1e-08 GB are free",
        ),
    ],
)
def test_mistakes_that_are_seen_before_a_folder_is_made(given, out, monkeypatch, model, tokens, trainer, message):
    run, path = given
    if tokens is not None:
        np.save(path, tokens)
    if free := trainer.pop("memory", None):
        monkeypatch.setattr("lit_attr.harvest.needs.free_bytes", lambda _: free)
    monkeypatch.setattr(writer, "open_harvest", lambda *_: pytest.fail("a folder would be made"))
    trainer = pl.Trainer(**QUIET, **trainer, callbacks=[StorageWriter(out)])
    with pytest.raises((ConfigurationError, DataError), match=message):
        trainer.predict(AttributionHarvester(run, **model), datamodule=TokenDataModule(path, 2, order="file"))
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"memory_gb": 1e-6}, "one sequence of 8 tokens needs"),
        ({"alive_batches": 1, "ci_threshold": 1.0}, "none of 7 components is alive"),
        ({"harvest_db": "nothing.db"}, "no harvest database at"),
    ],
)
def test_mistakes_that_the_device_shows(given, out, model, message):
    with pytest.raises(LitAttrError, match=message):
        work(*given, out, model=model)
    assert not out.parent.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_while_loading_stops_at_once(given, out, number):
    with pytest.raises(InterruptedHarvestError, match=f"^stopped by {number.name} before anything new was") as stopped:
        work(*given, out, Send(number))
    assert stopped.value.exit_code == (130 if number == signal.SIGINT else 2)
    assert not out.parent.exists()


def test_a_signal_that_is_swallowed_while_loading_stops_before_the_first_batch(given, out):
    class Swallow(Send):
        def on_predict_start(self, *_):
            with suppress(InterruptedHarvestError):
                super().on_predict_start()

        def on_predict_batch_start(self, *_):
            pytest.fail("a batch was begun")

    with pytest.raises(InterruptedHarvestError, match=r"^stopped by SIGTERM before anything new was committed"):
        work(*given, out, Swallow(signal.SIGTERM))


def test_another_persons_mistake_in_the_first_batches(given, out):
    out.mkdir(parents=True)
    with pytest.raises(KeyError):
        work(*given, out, Fail())
    assert list(out.iterdir()) == [], "the root was there before"
    with pytest.raises(KeyError):
        work(*given, out, Fail(), **INDEPENDENT)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("callback", [Fail(), Send(signal.SIGTERM)])
def test_what_was_committed_stays(given, out, callback):
    folder = stop(1, *given, out)
    with pytest.raises((KeyError, InterruptedHarvestError)):
        work(*given, out, callback)
    assert status(folder).n_done == 1
    assert work(*given, out).folder == folder


def test_a_harvest_on_which_another_worker_has_begun_stays(given, out):
    """The other one, too, is before its first commit."""
    folder = out / "dataset_attributions" / "run" / "da-x"

    class Other(Fail):
        def on_predict_start(self, *_):
            self.present = Presence(folder)

    other = Other()
    with pytest.raises(KeyError):
        work(*given, out, other, **INDEPENDENT)
    assert other.present.counts
    other.present.leave()
    for rank in range(2):
        work(*given, out, subrun_id="da-x", data={"rank": rank, "world_size": 2})
    assert status(folder).n_done == 3


def test_one_who_comes_while_the_last_one_leaves_begins_anew(given, out, monkeypatch):
    """The plan that it has read is gone when it has its turn."""
    leaving = []

    def removed_meanwhile(folder):
        if not leaving:
            leaving.append(Presence(folder))
            assert leaving[0].abandon()
        return Presence(folder)

    monkeypatch.setattr(resume, "Presence", removed_meanwhile)
    assert work(*given, out, subrun_id="da-x").path.exists()
    assert len(leaving) == 1


@pytest.mark.slow
def test_who_comes_finds_a_whole_harvest_while_others_give_up(given, out):
    """Three processes come and give up, all the time: none fails, none finds files that another removes."""
    program = """
import sys
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.resume import HarvestSettings, open_harvest
from lit_attr.storage.result_folders import Place
data = TokenDataModule(sys.argv[1], 2)
settings = HarvestSettings("run", "weights", "32-true", "both", 1.0, True, {})
for _ in range(150):
    generations, presence = open_harvest(settings, data, 1, Place(sys.argv[2], "da-x"))
    assert generations[0].path.exists() and presence.counts
    presence.abandon()
"""
    command = [sys.executable, "-c", program, str(given[1]), str(out)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0, 0], ends
    assert not list(out.rglob("generation*"))


def test_without_a_writer_it_is_said_that_nothing_is_stored(given):
    harvester = AttributionHarvester(given[0])
    trainer = pl.Trainer(**QUIET)
    with pytest.warns(UserWarning, match=r"no StorageWriter .*: nothing is stored, the sums stay in `harvester\.sums`"):
        trainer.predict(harvester, datamodule=TokenDataModule(given[1], 2))
    assert int(harvester.sums.compute()["n_tokens"]) == 1, "tokens over tokens"


def test_nothing_is_advertised(given, out, capfd, caplog):
    from lit_attr.cli.main import main

    caplog.set_level(logging.INFO)
    options = ["--trainer.accelerator", "cpu", "--writer.out_dir", str(out), "--trainer.enable_progress_bar", "false"]
    assert main(["predict", "--model.run", str(given[0]), "--data.tokens", str(given[1]), *options]) == 0
    said = caplog.text + "".join(capfd.readouterr())
    assert "lit_attr: harvesting run on the CPU: 7 components" in said
    for word in ("TPU", "GPU", "Tip", "litlogger", "srun"):
        assert word not in said
