"""Warnings of a job's end that come before anything could be done."""

import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lit_attr import early_signal
from lit_attr.errors import InterruptedHarvestError
from lit_attr.harvest import preemption
from lit_attr.harvest.preemption import requeue
from tests.harvest.runs import QUIET, small_run
from tests.toys import write_tokens


@pytest.mark.slow
def test_a_warning_that_comes_while_python_imports(tmp_path, scontrol):
    """It is noted from the first moment on: the job is asked for again, and nothing is begun."""
    options = ["--model.run", str(small_run(tmp_path / "run")), "--writer.out_dir", str(tmp_path / "new")]
    options += ["--data.tokens", str(write_tokens(tmp_path / "tokens.npy", n_rows=4)), "--data.batch_size", "2"]
    job = {"JOB_NAME": "x", "NTASKS": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "JOB_NODELIST": "localhost"}
    job |= {"JOB_NUM_NODES": 1, "STEP_ID": 0, "STEP_NUM_TASKS": 1, "NTASKS_PER_NODE": 1}
    scontrol.with_name("scontrol.txt.job").write_text(shown(5, 43_200))
    environment = {**os.environ, **{f"SLURM_{name}": str(value) for name, value in job.items()}}
    command = [sys.executable, "-m", "lit_attr.cli.main", "predict", "--trainer.accelerator", "cpu", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        known = f"/proc/{process.pid}"
        mask, end = 0, time.monotonic() + 60
        while not mask >> (signal.SIGUSR1 - 1) & 1 and time.monotonic() < end:
            caught = re.search(r"SigCgt:\s*(\w+)", Path(known, "status").read_text())
            mask = int(caught[1], 16) if caught else 0
        assert "libtorch" not in Path(known, "maps").read_text()
        process.send_signal(signal.SIGUSR1)
        said = process.stderr.read()
    assert process.returncode == 2, said
    assert "lit-attr: error: stopped by SIGUSR1 before anything new was committed; the same command continues" in said
    assert scontrol.read_text() == "requeue 12\n"
    assert not (tmp_path / "new").exists()


def test_others_wait_for_the_first_to_ask(scontrol, monkeypatch):
    """The step of a job ends with the first of its processes that does."""

    class Second(Trainer):
        is_global_zero = False

    slept = []
    monkeypatch.setattr(preemption.time, "sleep", slept.append)
    trainer = Second(**QUIET)
    trainer._accelerator_connector.cluster_environment = SLURMEnvironment()
    early_signal._note(signal.SIGUSR1, None)
    with pytest.raises(InterruptedHarvestError, match="stopped by SIGUSR1"), preemption.stopping_at_once(trainer):
        pytest.fail("goes on")
    assert slept == [30.0]
    assert scontrol.read_text() == ""


@pytest.mark.parametrize(
    ("ran", "limit", "is_futile"),
    [(5, 60, True), (5, 180, True), (5, 43_200, False), (3600, 3720, False), (None, 60, False)],
)
def test_a_job_that_ends_before_it_begins_is_not_started_again(scontrol, caplog, ran, limit, is_futile):
    """Its time limit is shorter than the warning before it: the next would end in the same way."""
    if ran is not None:
        scontrol.with_name("scontrol.txt.job").write_text(shown(ran, limit))
    trainer = Trainer(**QUIET)
    trainer._accelerator_connector.cluster_environment = SLURMEnvironment()
    assert requeue(trainer, has_begun=False) is not is_futile
    assert scontrol.read_text() == ("" if is_futile else "requeue 12\n")
    assert ("its time limit is over before anything can be done" in caplog.text) == is_futile
    assert requeue(trainer)
    assert scontrol.read_text().endswith("requeue 12\n")


def shown(ran, limit):
    """What `scontrol show job` says of a job that has run for so many of its seconds."""
    start = datetime.now().replace(microsecond=0) - timedelta(seconds=ran)
    end = start + timedelta(seconds=limit)
    return f"JobId=12 JobName=x StartTime={start.isoformat()} EndTime={end.isoformat()} Deadline=N/A\n"
