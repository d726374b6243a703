"""Whole harvests on a real SLURM, submitted, disturbed and merged; equal to those of one process."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from lit_attr.cli.main import main
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.harvest.runs import assert_same, harvest
from tests.launch.standin import git
from tests.toys import write_run, write_tokens

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
N_BATCHES = 48
_TIMEOUT = 60


class Batch(NamedTuple):
    """What tests/launch/watch.py writes down."""

    rank: int
    process: int
    restart: int
    batch_id: int


class Submission:
    """Jobs of `lit-attr submit`, run from a repository of their own.

    Args:
        slurm: The cluster.
        repository: Of the code.
        folder: Holds `config.yaml`, see the fixture `config`.
        options: Of `lit-attr submit`.
    """

    def __init__(self, slurm, repository, folder, *options):
        self.slurm, self.folder = slurm, folder
        command = [sys.executable, "-P", "-m", "lit_attr.cli.main", "submit", "--config", folder / "config.yaml"]
        environment = {**os.environ, "PYTHONPATH": f"{repository}:{os.environ['PYTHONPATH']}"}
        words = [*map(str, command), *options]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.report = done.stdout
        self.subrun_id = re.search(r"^harvest +(.*)$", self.report, re.MULTILINE)[1]
        self.result = Path(re.search(r"^result +(.*)$", self.report, re.MULTILINE)[1])
        self.jobs = re.search(r"squeue --jobs=(\S*)", self.report)[1].split(",")

    def batches(self, rank):
        """Batches that a rank has begun so far, in order."""
        path = self.folder / "batches"
        lines = path.read_text().splitlines() if path.exists() else []
        return [found for line in lines if (found := Batch(*map(int, line.split()))).rank == rank]

    def slow(self, *ranks):
        for rank in ranks:
            (self.folder / f"slow_{rank}").touch()

    def wait_for_batches(self, rank, count, restart=0):
        """Wait until a rank has begun so many batches since a restart; its process."""
        deadline = time.monotonic() + _TIMEOUT
        while len(found := [b for b in self.batches(rank) if b.restart == restart]) < count:
            assert time.monotonic() < deadline, f"rank {rank} has begun {found}\n{self.logs()}"
            if restart:
                self.slurm.states(self.jobs[0])  # starts it soon
            time.sleep(0.05)
        return found[0].process

    def wait_for_end(self, *processes):
        """Wait until processes that were told to end have done so, and slow down nobody any more."""
        deadline = time.monotonic() + _TIMEOUT
        while any(Path(f"/proc/{process}").exists() for process in processes):
            assert time.monotonic() < deadline, f"{processes} go on\n{self.logs()}"
            time.sleep(0.05)
        for path in self.folder.glob("slow_*"):
            path.unlink()

    def ends(self, job, *wanted):
        """Wait until a job, or all tasks of an array, have ended, and compare their states."""
        found = self.slurm.wait(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", timeout=2 * _TIMEOUT)
        assert tuple(state for _, state in sorted(found.items())) == wanted, self.logs()

    def logs(self):
        return "\n".join(f"=== {path}\n{path.read_text()}" for path in sorted(self.folder.rglob("*.log")))

    def go_on(self):
        """The commands that the submission names for jobs that are to go on."""
        lines = self.report.partition("\ngo on ")[2].splitlines()
        return [line.strip() for line in lines if line.strip().startswith("sbatch")]

    def run(self, command):
        """Run one of them, and wait until the job that it submits has succeeded."""
        self.ends(self.slurm.call(*shlex.split(command)).split()[-1], "COMPLETED")


@pytest.fixture
def repository(tmp_path):
    """The real package in a repository, with changes that are not committed and that it cannot do without."""
    repository = tmp_path / "repo"
    shutil.copytree(ROOT / "lit_attr", repository / "lit_attr", ignore=shutil.ignore_patterns("__pycache__"))
    (repository / ".gitignore").write_text("__pycache__/\n")
    version = repository / "lit_attr" / "_version.py"
    version.write_text("raise SystemExit('code of HEAD')\n")
    git(repository, "init", "-q")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "first")
    version.write_text("from lit_attr.untracked import __version__ as __version__\n")
    (repository / "lit_attr" / "untracked.py").write_text("__version__ = '0.uncommitted'\n")
    return repository


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A run and its tokens."""
    folder = tmp_path_factory.mktemp("data")
    return write_run(folder / "spd-s-toytoy00"), write_tokens(folder / "tokens.npy", N_BATCHES)


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    """The harvest by one process."""
    run, tokens = data
    return harvest(AttributionHarvester(run), tokens, tmp_path_factory.mktemp("single"), batch_size=1)


@pytest.fixture
def config(data, tmp_path, monkeypatch):
    """Configuration of the harvest, committed every two batches; also written to config.yaml."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the callback
    run, tokens = data
    content = {
        "model": {"run": str(run)},
        "data": {"tokens": str(tokens), "batch_size": 1},
        "writer": {"commit_batches": 2},
        "trainer": {
            "accelerator": "cpu",
            "callbacks": [{"class_path": "tests.launch.watch.Watch", "init_args": {"folder": str(tmp_path)}}],
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return content


def check(submission, expected, capsys):
    """The result is that of one process, and says that it is complete."""
    found = DatasetAttributionStorage.load(submission.result)
    assert_same(found, expected, tolerance=1e-6)
    assert found.provenance["coverage"] == {
        "n_batches": N_BATCHES,
        "batches": [[0, N_BATCHES - 1, 1]],
        "complete": True,
    }
    capsys.readouterr()
    assert main(["verify", "s-toytoy00", "--subrun_id", submission.subrun_id]) == 0
    assert f"coverage: all {N_BATCHES} batches" in capsys.readouterr().out
    assert main(["status", "s-toytoy00", "--subrun_id", submission.subrun_id]) == 0
    assert f"{N_BATCHES} of {N_BATCHES} batches (merged)" in capsys.readouterr().out
    return found


def test_a_worker_is_requeued_and_another_killed(slurm, repository, tmp_path, config, expected, capsys):
    """Of three workers one goes on by itself, one as the submission says; the code changes while they wait."""
    slurm.hold(True)
    submission = Submission(slurm, repository, tmp_path, "--n_gpus", "3")
    array, merge = submission.jobs
    (repository / "lit_attr" / "untracked.py").write_text("raise SystemExit('code of later')\n")
    submission.slow(1, 2)
    slurm.hold(False)
    requeued = submission.wait_for_batches(1, 3)
    slurm.scancel("--signal=USR1", f"{array}_1")
    killed = submission.wait_for_batches(2, 5)  # an odd number: it is not committing
    os.kill(killed, signal.SIGKILL)
    submission.wait_for_end(requeued, killed)
    submission.ends(array, "COMPLETED", "COMPLETED", "FAILED")
    submission.ends(merge, "CANCELLED")
    assert not submission.result.exists()
    assert {b.restart for b in submission.batches(1)} == {0, 1}
    assert len(submission.batches(1)) == N_BATCHES // 3  # none twice
    n_begun = len(submission.batches(2))
    n_committed = (n_begun - 1) // 2 * 2
    assert main(["status", "s-toytoy00", "--subrun_id", submission.subrun_id, "--silent_minutes", "0"]) == 0
    shown = capsys.readouterr().out
    assert f"job {array}_2, process {killed})" in shown
    assert re.search(r"^ +srun: error: .*[Kk]illed$", shown, re.MULTILINE)
    assert f"{N_BATCHES * 2 // 3 + n_committed} of {N_BATCHES} batches (not merged yet)" in shown
    assert "2 of 3 done" in shown
    assert main(["merge", "s-toytoy00", "--subrun_id", submission.subrun_id]) == 2
    assert "are missing" in capsys.readouterr().err

    workers, merge = submission.go_on()
    (again,) = re.findall(r"^  again +(.*)$", shown, re.MULTILINE)
    assert again == workers.replace("TASKS", "2")
    submission.run(again)
    submission.run(merge)
    found = check(submission, expected, capsys)
    assert found.provenance["lit_attr_version"] == "0.uncommitted"
    done = [batch.batch_id for batch in submission.batches(2)]
    assert done[n_begun:] == list(range(2, N_BATCHES, 3))[n_committed:]


@pytest.fixture
def slow_scontrol(tmp_path, monkeypatch):
    """SLURM takes three seconds to answer a request of a job, as on a busy cluster."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/bash\n[ "$1" = requeue ] && sleep 3\nexec {shutil.which("scontrol")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def test_ddp_is_requeued_twice(slurm, slow_scontrol, repository, tmp_path, config, expected, capsys):
    """SLURM signals both processes, then one alone is signalled; neither ends before SLURM was asked for a restart."""
    submission = Submission(slurm, repository, tmp_path, "--n_gpus", "2", "--mode", "ddp")
    (job,) = submission.jobs
    for restart in (0, 1):
        submission.slow(0, 1)
        processes = [submission.wait_for_batches(rank, 3, restart) for rank in (0, 1)]
        if restart == 0:
            slurm.scancel("--signal=USR1", job)
        else:
            os.kill(processes[1], signal.SIGUSR1)
        submission.wait_for_end(*processes)
    submission.ends(job, "COMPLETED")
    check(submission, expected, capsys)
    done = [b for rank in (0, 1) for b in submission.batches(rank)]
    assert sorted(b.batch_id for b in done) == list(range(N_BATCHES))  # none twice
    assert {b.restart for b in done} == {0, 1, 2}


def test_one_worker_writes_the_result_and_the_merge_agrees(slurm, repository, tmp_path, config, expected, capsys):
    submission = Submission(slurm, repository, tmp_path, "--n_gpus", "1")
    array, merge = submission.jobs
    submission.ends(array, "COMPLETED")
    assert submission.result.exists()
    submission.ends(merge, "COMPLETED")
    check(submission, expected, capsys)


@pytest.mark.parametrize(
    ("allocation", "trainer"),
    [
        (["-n2"], []),
        (["-n2", "--job-name=mine"], ["--trainer.devices", "2", "--trainer.strategy", "ddp"]),
        (["-n2", "--ntasks-per-node=2", "srun"], ["--trainer.devices", "2", "--trainer.strategy", "ddp"]),
    ],
    ids=["one process", "two of its own", "two of srun"],
)
def test_in_an_interactive_allocation(slurm, tmp_path, config, expected, allocation, trainer):
    """One harvest, of as many processes as were asked for, whatever the allocation is called and has room for."""
    predict = [sys.executable, "-P", "-m", "lit_attr.cli.main", "predict", "--config", tmp_path / "config.yaml"]
    words = ["salloc", *allocation, *predict, *trainer, "--writer.subrun_id", "da-mine"]
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, capture_output=True, text=True, timeout=_TIMEOUT)
    assert done.returncode == 0, done.stderr
    result = Path(re.search(r"^harvest stored in (.*)$", done.stdout, re.MULTILINE)[1])
    assert_same(DatasetAttributionStorage.load(result), expected, tolerance=1e-6)
    ranks = [line.split()[:2] for line in (tmp_path / "batches").read_text().splitlines()]
    assert len(ranks) == N_BATCHES
    assert len({process for _, process in ranks}) == len({rank for rank, _ in ranks}) == (2 if trainer else 1)
    assert ("not started by srun" in done.stderr) == ("srun" not in allocation)


def test_a_worker_that_may_not_be_requeued_fails(slurm, repository, tmp_path, config):
    """Stopped before its end, where Lightning's settings forbid to start it again: no merge."""
    environment = "lightning.pytorch.plugins.environments.SLURMEnvironment"
    config["trainer"]["plugins"] = [{"class_path": environment, "init_args": {"auto_requeue": False}}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    submission = Submission(slurm, repository, tmp_path, "--n_gpus", "1")
    array, merge = submission.jobs
    submission.slow(0)
    process = submission.wait_for_batches(0, 3)
    slurm.scancel("--signal=USR1", f"{array}_0")
    submission.wait_for_end(process)
    submission.ends(array, "FAILED")
    submission.ends(merge, "CANCELLED")
    assert "stopped by SIGUSR1: worker 0 has committed" in submission.logs()
    assert not submission.result.exists()
