"""What is said of workers that end, by themselves and by the command that shows a harvest's state."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.workers import Work, start
from lit_attr.cli.main import main
from lit_attr.parts.status import status
from tests.harvest.runs import small_run
from tests.toys import random_tokens

pytestmark = pytest.mark.slow


def test_of_three_workers_one_is_done_one_fails_and_one_is_killed(tmp_path, capsys):
    """The file of the one that fails is changed while it works."""
    np.save(tmp_path / "tokens.npy", random_tokens(3000).numpy())
    run, logs = small_run(tmp_path / "run"), [tmp_path / f"log_{rank}" for rank in range(3)]
    writer = {"out_dir": tmp_path / "out", "subrun_id": "da-x", "commit_batches": 1}
    workers = []
    for rank, log in enumerate(logs):
        data = {"batch_size": 500, "rank": rank, "world_size": 3, "order": "file"}
        signals = ({}, {1: int(signal.SIGSTOP)}, {1: int(signal.SIGKILL)})[rank]
        workers.append(start(Work(run, tmp_path / "tokens.npy", log, data=data, writer=writer, signals=signals)))
    for worker in (workers[0], workers[2]):
        worker.join(60)
    state = Path(f"/proc/{workers[1].pid}/stat")
    while state.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.05)
    rows = np.load(tmp_path / "tokens.npy", mmap_mode="r+")
    rows[2001, 5] = 3
    rows.flush()
    os.kill(workers[1].pid, signal.SIGCONT)
    workers[1].join(60)
    assert [worker.exitcode for worker in workers] == [0, 2, -signal.SIGKILL]
    folder = tmp_path / "out" / "dataset_attributions" / "run" / "da-x"
    found = status(folder).workers
    assert [(worker.n_done, worker.record.state) for worker in found] == [(2, "done"), (1, "failed"), (1, "working")]
    assert [worker.record.process for worker in found] == [worker.pid for worker in workers]
    assert all(worker.record.started <= time.time() for worker in found)
    with logs[2].open("a") as log:
        log.write("srun: error: node1: task 0: Killed\n")
    assert main(["status", str(folder), "--silent_minutes", "0"]) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    failed, silent = (next(n for n, line in enumerate(shown) if line.startswith(kind)) for kind in ("failed", "silent"))
    assert shown[failed].startswith("failed      worker 1, 0:00:")
    assert ": 1 of 2 batches (" in shown[failed]
    assert shown[failed + 1].startswith(f"the data {tmp_path / 'tokens.npy'} was changed after it was opened")
    assert f"process {workers[2].pid})" in shown[silent]
    assert shown[-3:-1] == ["srun: error: node1: task 0: Killed", f"log: {logs[2]}"]
    assert shown[-1].startswith("again       cd ")
