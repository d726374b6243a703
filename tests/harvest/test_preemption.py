"""Signals: what becomes of the process, and of its job."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
from lightning.pytorch import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from lit_attr.data import rows
from lit_attr.data.spec import DatasetOptions, DatasetSpec
from lit_attr.errors import InterruptedHarvestError
from lit_attr.harvest import preemption
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.preemption import requeue
from lit_attr.harvest.writer import StorageWriter
from lit_attr.parts.status import status
from lit_attr.query.attribution_repo import AttributionRepo
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.harvest.runs import QUIET, Signal, assert_same, small_run, stop, work
from tests.toys import write_tokens

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def given(tmp_path):
    return small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=5)


class InJob(Callback):
    """As if the trainer had found itself in a job."""

    def __init__(self, environment):
        self.environment = environment

    def on_predict_start(self, trainer, pl_module):
        trainer._accelerator_connector.cluster_environment = self.environment


class Trainer(pl.Trainer):
    """What `requeue` asks a trainer."""

    is_global_zero = None

    def __init__(self, environment, is_first=True):
        self.is_global_zero = is_first
        self._accelerator_connector = SimpleNamespace(cluster_environment=environment)


@pytest.mark.parametrize("number", SIGNALS)
def test_one_line_that_says_what_was_done(given, tmp_path, number):
    with pytest.raises(InterruptedHarvestError) as stopped:
        work(*given, tmp_path / "found", Signal(2, number))
    (folder,) = (tmp_path / "found" / "dataset_attributions" / "run").iterdir()
    assert str(stopped.value) == (
        f"stopped by {number.name}: worker 0 has committed 2 of 3 batches in {folder}; the same command continues"
    )
    assert status(folder).n_done == 2


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_not_taken_for_a_fault_of_the_dataset_that_is_read(number, monkeypatch):
    """Who reads it makes every exception of the library one of the dataset."""
    requeued = []
    monkeypatch.setattr(preemption, "requeue", lambda trainer, **_: requeued.append(trainer))
    trainer = pl.Trainer(**QUIET)

    class Dataset:
        def iter(self, batch_size):
            os.kill(os.getpid(), number)
            yield {}

    spec = DatasetSpec.resolve({"dataset_name": "texts"}, DatasetOptions(tokenizer="t"), None)
    message = f"^stopped by {number.name} before"
    with pytest.raises(InterruptedHarvestError, match=message) as stopped, preemption.stopping_at_once(trainer):
        list(rows._batches(Dataset(), spec))
    assert stopped.value.exit_code == (130 if number == signal.SIGINT else 2)
    assert requeued == [trainer] * (number == signal.SIGUSR1)


@pytest.mark.parametrize("order", [SIGNALS[:2], SIGNALS[1::-1]])
def test_the_first_signal_decides(given, tmp_path, order):
    """SLURM announces a time limit with one and enforces it with the other."""

    class Both(Callback):
        def on_predict_batch_end(self, *_):
            for number in order:
                os.kill(os.getpid(), number)

    with pytest.raises(InterruptedHarvestError, match=f"stopped by {order[0].name}: "):
        work(*given, tmp_path / "found", Both())


@pytest.mark.parametrize("ends", ["well", "stopped", "badly"])
def test_who_listened_before_listens_again(given, tmp_path, ends):
    class Bad(Callback):
        def on_predict_batch_start(self, *_):
            raise KeyError

    def listener(*_):
        pass

    class During(Callback):
        def on_predict_batch_start(self, *_):
            handlers.append([signal.getsignal(number) for number in SIGNALS])

    handlers = []
    before = [signal.signal(number, listener) for number in SIGNALS]
    try:
        for _ in range(2):
            if ends == "well":
                work(*given, tmp_path / "found", During())
            elif ends == "stopped":
                stop(1, *given, tmp_path / "found")
            else:
                with pytest.raises(KeyError):
                    work(*given, tmp_path / "found", Bad())
            assert [signal.getsignal(number) for number in SIGNALS] == [listener] * len(SIGNALS)
        assert all(listener not in during for during in handlers)
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_a_writer_forgets_the_signal_that_it_obeyed(given, tmp_path):
    writer = StorageWriter(tmp_path / "found")
    harvester, data = AttributionHarvester(given[0]), TokenDataModule(given[1], 2)
    with pytest.raises(InterruptedHarvestError):
        pl.Trainer(**QUIET, callbacks=[Signal(1), writer]).predict(harvester, datamodule=data)
    pl.Trainer(**QUIET, callbacks=[writer]).predict(harvester, datamodule=data)
    assert DatasetAttributionStorage.load(writer.path).n_tokens_processed == 40


def test_a_signal_after_the_last_batch_does_not_stop_what_is_complete(given, tmp_path):
    class Late(Callback):
        def on_predict_epoch_end(self, *_):
            os.kill(os.getpid(), signal.SIGTERM)

    assert work(*given, tmp_path / "found", Late()).path.exists()


@pytest.mark.parametrize(
    ("number", "environment", "array", "asked"),
    [
        (signal.SIGUSR1, SLURMEnvironment(), None, "requeue 12\n"),
        (signal.SIGUSR1, SLURMEnvironment(), ("10", "3"), "requeue 10_3\n"),
        (signal.SIGUSR1, SLURMEnvironment(auto_requeue=False), None, ""),
        (signal.SIGUSR1, LightningEnvironment(), None, ""),
        (signal.SIGTERM, SLURMEnvironment(), None, ""),
    ],
)
def test_when_a_job_is_started_again(given, tmp_path, scontrol, monkeypatch, caplog, number, environment, array, asked):
    """It announces its end by SIGUSR1; by SIGTERM it is cancelled, or preempted, and then put back without a word."""
    caplog.set_level(logging.INFO)
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array[0])
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", array[1])
    with pytest.raises(InterruptedHarvestError):
        work(*given, tmp_path / "found", InJob(environment), Signal(1, number))
    assert scontrol.read_text() == asked
    assert ("to start job" in caplog.text) == bool(asked)
    (folder,) = (tmp_path / "found" / "dataset_attributions" / "run").iterdir()
    (worker,) = status(folder).workers
    assert worker.has_ended_early
    assert (worker.record.job, worker.record.state) == ("10_3" if array else "12", "requeued" if asked else "stopped")
    assert worker.record.reason.startswith(f"stopped by {number.name}: worker 0 has committed 1 of ")


@pytest.mark.parametrize(("number", "asked"), [(signal.SIGUSR1, "requeue 12\n"), (signal.SIGTERM, "")])
def test_a_job_that_ends_while_it_loads(given, tmp_path, scontrol, number, asked):
    class Load(InJob):
        def on_predict_start(self, trainer, pl_module):
            super().on_predict_start(trainer, pl_module)
            os.kill(os.getpid(), number)

    with pytest.raises(InterruptedHarvestError, match="before anything new was committed"):
        work(*given, tmp_path / "found", Load(SLURMEnvironment()))
    assert scontrol.read_text() == asked
    assert not (tmp_path / "found").exists()


def test_everything_is_committed_before_the_job_is_started_again(given, tmp_path, scontrol, monkeypatch):
    (folder,) = {stop(1, *given, tmp_path / "found")}
    done = []
    monkeypatch.setattr(preemption.subprocess, "run", lambda *_, **__: done.append(status(folder).n_done))
    with pytest.raises(InterruptedHarvestError):
        work(*given, tmp_path / "found", InJob(SLURMEnvironment()), Signal(1))
    assert done == [2]


def test_only_the_first_process_asks(scontrol):
    requeue(Trainer(SLURMEnvironment(), is_first=False))
    assert scontrol.read_text() == ""
    requeue(Trainer(SLURMEnvironment()))
    assert scontrol.read_text() == "requeue 12\n"


def test_a_job_without_an_id(scontrol, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    requeue(Trainer(SLURMEnvironment()))
    assert scontrol.read_text() == ""


@pytest.mark.parametrize(("broken", "why"), [("fails", "no such job"), ("absent", "No such file or directory")])
def test_a_job_that_cannot_be_started_again(scontrol, monkeypatch, caplog, broken, why):
    """In a container there may be no scontrol."""
    if broken == "absent":
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        scontrol.with_name("scontrol.txt.fail").touch()
    requeue(Trainer(SLURMEnvironment()))
    assert "SLURM did not requeue job 12" in caplog.text
    assert why in caplog.text


_SLOW = """
import os, sys, time
from pathlib import Path
from lit_attr.cli.main import main
from lit_attr.harvest.harvester import AttributionHarvester
step, load = AttributionHarvester.predict_step, AttributionHarvester.load_run
def tell(rank, step):
    Path(os.environ["STEPS"], f"{rank}").write_text(f"{os.getpid()} {step}")
def slow_step(self, batch, batch_idx):
    tell(self.trainer.global_rank, batch_idx)
    result = step(self, batch, batch_idx)
    time.sleep(0.4)
    return result
def slow_load(self):
    if os.environ["LOAD"]:
        tell(self.trainer.global_rank, -1)
        time.sleep(float(os.environ["LOAD"]))
    return load(self)
AttributionHarvester.predict_step, AttributionHarvester.load_run = slow_step, slow_load
sys.exit(main())
"""


class Command:
    """`lit-attr predict` in a process group of its own, as a terminal starts it, with batches that take a while.

    Args:
        folder: For its files.
        options: Behind the run and the tokens.
        load: Seconds that the run takes to load.
    """

    def __init__(self, folder, options, load=""):
        (folder / "slow.py").write_text(_SLOW)
        self.steps = folder / "steps"
        self.steps.mkdir(exist_ok=True)
        for old in self.steps.iterdir():
            old.unlink()
        command = [sys.executable, str(folder / "slow.py"), "predict", "--trainer.accelerator", "cpu", *options]
        environment = {**os.environ, "STEPS": str(self.steps), "LOAD": load}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def at(self, rank, step):
        """Wait for a process to reach a step, -1 for loading; its id."""
        end = time.monotonic() + 90
        while time.monotonic() < end:
            path = self.steps / str(rank)
            words = path.read_text().split() if path.exists() else []
            if len(words) == 2 and int(words[1]) >= step:
                return int(words[0])
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.02)
        raise AssertionError("never gets there")

    def press_ctrl_c(self):
        """As a terminal does: every process of the group gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self):
        """Exit code, and what was said on standard error; a moment later none of its processes is left."""
        try:
            code, said = self.process.wait(60), self.process.stderr.read()
        finally:
            self.process.kill()
            self.process.stderr.close()
        end = time.monotonic() + 5
        while self.is_alive():
            assert time.monotonic() < end, "a process is left"
            time.sleep(0.05)
        return code, said

    def is_alive(self):
        """Whether any process of the group is."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


def command_options(tmp_path, n_processes):
    """A run, tokens of 12 batches, and the options of a command that harvests them."""
    run, tokens = small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=24)
    options = ["--model.run", str(run), "--data.tokens", str(tokens), "--data.batch_size", "2"]
    options += ["--trainer.devices", str(n_processes), "--writer.out_dir", str(tmp_path / "new" / "found")]
    return run, tokens, options + ["--trainer.strategy", "ddp"] * (n_processes > 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_processes", "number", "rank"),
    [
        (1, signal.SIGUSR1, 0),
        (2, signal.SIGUSR1, 0),
        (2, signal.SIGTERM, 1),
        (1, signal.SIGINT, None),
        (2, signal.SIGINT, None),
    ],
)
def test_the_command_is_stopped_and_continues(tmp_path, n_processes, number, rank):
    run, tokens, options = command_options(tmp_path, n_processes)
    command = Command(tmp_path, options)
    if rank is None:
        command.at(0, step=1)
        command.at(n_processes - 1, step=1)
        command.press_ctrl_c()
    else:
        os.kill(command.at(rank, step=1), number)
    code, said = command.end()
    assert code == (130 if number == signal.SIGINT else 2)
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if "error:" in line]
    assert len(errors) == n_processes, said
    for told in range(n_processes) if rank is None else [rank]:
        assert any(line.startswith(f"lit-attr: error: stopped by {number.name}: worker {told} has") for line in errors)
    assert AttributionRepo.open("run", tmp_path / "new" / "found") is None
    (folder,) = (tmp_path / "new" / "found" / "dataset_attributions" / "run").iterdir()
    done = status(folder).n_done
    assert 2 * n_processes <= done < 12
    code, said = Command(tmp_path, options).end()
    assert code == 0, said
    assert f"continuing, with {done} of 12 batches done" in said
    expected = DatasetAttributionStorage.load(work(run, tokens, tmp_path / "expected").path)
    assert_same(AttributionRepo.open("run", tmp_path / "new" / "found").get_attributions(), expected, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM to the first", "Ctrl-C twice in a batch"])
def test_two_processes_end_at_once(tmp_path, how):
    """While they load, or by a second Ctrl-C: promptly, without a commit, a traceback, or anything left behind."""
    _, _, options = command_options(tmp_path, 2)
    in_a_batch = how == "Ctrl-C twice in a batch"
    command = Command(tmp_path, options, load="" if in_a_batch else "30")
    pids = [command.at(rank, step=0 if in_a_batch else -1) for rank in range(2)]
    begin = time.monotonic()
    if how == "SIGTERM to the first":
        os.kill(pids[0], signal.SIGTERM)
    else:
        command.press_ctrl_c()
    if in_a_batch:
        time.sleep(0.1)
        command.press_ctrl_c()
    code, said = command.end()
    assert time.monotonic() - begin < 15
    assert code == (2 if how == "SIGTERM to the first" else 130)
    assert "Traceback" not in said
    assert re.search(
        r"^lit-attr: error: stopped by \w+ before anything new was committed; the same", said, re.MULTILINE
    )
    assert not (tmp_path / "new").exists()
