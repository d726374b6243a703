import re
import time

import pytest
from lightning.pytorch.loggers import Logger

from lit_attr.harvest import progress, stopping
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.progress import HarvestProgress
from lit_attr.harvest.writer import StorageWriter
from tests.harvest.runs import QUIET
from tests.toys import write_run, write_tokens


class Recorder(Logger):
    def __init__(self):
        self.metrics, self.hparams = [], {}

    name, version = "recorder", 0

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, metrics))

    def log_hyperparams(self, params, *args, **kwargs):
        self.hparams = dict(params)


@pytest.fixture
def harvest(tmp_path):
    from lightning.pytorch import Trainer

    from lit_attr.harvest.datamodule import TokenDataModule

    def run(logger=False, n_rows=5, **model):
        callbacks = [HarvestProgress(), StorageWriter(tmp_path / "results")]
        trainer = Trainer(**{**QUIET, "enable_progress_bar": True, "logger": logger}, callbacks=callbacks)
        data = TokenDataModule(write_tokens(tmp_path / "t.npy", n_rows), batch_size=2)
        trainer.predict(AttributionHarvester(write_run(tmp_path / "run"), **model), datamodule=data)

    return run


def test_without_a_terminal_a_line_from_time_to_time_and_at_the_end(harvest, capfd, monkeypatch):
    """Also within a batch that takes long."""
    monkeypatch.setattr(progress, "_HEARTBEAT", 0.1)
    step = AttributionHarvester.predict_step
    monkeypatch.setattr(AttributionHarvester, "predict_step", lambda *args: (time.sleep(0.35), step(*args))[1])
    harvest()
    lines = [line for line in capfd.readouterr().out.splitlines() if line]
    form = re.compile(r"lit_attr: (\d/3) batches, [\d,]+ tokens/s, (unknown time|0:00:\d\d) left$")
    done = [form.match(line)[1] for line in lines]
    assert done == sorted(done)
    assert done.count("0/3") >= 2
    assert done[-1] == "3/3"


def test_a_short_harvest_has_one_line(harvest, capfd, monkeypatch):
    monkeypatch.setattr(StorageWriter, "silence", "no answer from process 1 for 75 s")
    harvest()
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith("lit_attr: 3/3 batches")
    assert out.endswith(" left, no answer from process 1 for 75 s\n")
    assert "Predicting" not in out


def test_a_harvest_that_ends_early_has_no_time_left(harvest, capfd, monkeypatch):
    monkeypatch.setattr(stopping, "_FIRST", 8)
    recorder = Recorder()
    harvest(recorder, n_rows=24, stop_when="settled", stop_error=0.99)
    assert re.search(r"^lit_attr: 8/8 batches, [\d,]+ tokens/s, 0:00:00 left$", capfd.readouterr().out, re.MULTILINE)
    assert recorder.metrics[-1][1]["coverage"] == 1


def test_on_a_terminal_a_bar(harvest, capfd, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    harvest()
    out = capfd.readouterr().out
    assert re.search(r"3/3 .* tokens/s\]", out)
    assert "batches," not in out


@pytest.mark.slow
def test_the_logger_gets_rate_coverage_and_configuration(harvest, monkeypatch):
    monkeypatch.setattr(progress, "_HEARTBEAT", 0.0)
    logger = Recorder()
    harvest(logger)
    assert [step for step, _ in logger.metrics] == [1, 2, 3, 3]
    assert [m["coverage"] for _, m in logger.metrics] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert all(m["tokens_per_second"] > 0 for _, m in logger.metrics)
    assert logger.hparams["batch_size"] == 2
    assert logger.hparams["engine"] == "auto"
