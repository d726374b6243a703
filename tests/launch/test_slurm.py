"""Jobs on a real SLURM; the program that they run is a stand-in."""

import re
import shlex
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from lit_attr.errors import LaunchError
from lit_attr.launch.submit import submit
from tests.launch.standin import git, make_repository, plan, read_records, write_program

pytestmark = pytest.mark.slurm

SHIPPED = Path(__file__).parents[2] / "slurm"
# On SIGUSR1 an array task asks to be started again, and says that it has not finished.
REQUEUE = """
def requeue(number, frame):
    record(signal=signal.Signals(number).name)
    env = os.environ
    subprocess.run(["scontrol", "requeue", f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"], check=True)
    sys.exit(1)
signal.signal(signal.SIGUSR1, requeue)
record()
if rank == "1" and not again:
    time.sleep(60)
"""


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setenv("RECORDS", str(tmp_path / "records"))
    return tmp_path / "records"


def test_jobs_run_the_code_of_their_submission_in_order(slurm, records, tmp_path, monkeypatch):
    """Three workers on GPUs of their own, then the merge; the tree changes while they wait, and paths are nasty."""
    repository = make_repository(tmp_path / "my repo", "raise SystemExit('code of HEAD')")
    body = "record()\nif not is_merge: wait_until(3)"  # so that all three run at the same time
    write_program(repository, "uncommitted", body)
    monkeypatch.chdir(repository)
    out_dir = tmp_path / 'it\'s $HOME "%j"'
    slurm.hold(True)
    ids = submit(plan(repository, out_dir, on_cpu=False, n_gpus=3, time="10", merge_mem="100M"))
    write_program(repository, "later", "raise SystemExit('code of later')")
    assert set(slurm.states(ids[0]).values()) == set(slurm.states(ids[1]).values()) == {"PENDING"}
    slurm.hold(False)
    assert len(slurm.wait(ids[0], "COMPLETED")) == 3
    slurm.wait(ids[1], "COMPLETED")
    *workers, merge = read_records(records)
    assert {found["version"] for found in (*workers, merge)} == {"uncommitted"}
    assert {found["cwd"] for found in (*workers, merge)} == {str(repository)}
    folder = next((out_dir / "slurm_jobs").iterdir())
    for found in workers:
        rank = found["slurm"]["SLURM_ARRAY_TASK_ID"]
        assert found["argv"] == [
            *["predict", "--config", str(folder / "config.yaml")],
            *["--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.strategy", "auto"],
            *["--data.rank", rank, "--data.world_size", "3", "--writer.subrun_id", folder.name],
        ]
        assert found["slurm"]["LIT_ATTR_OUT_DIR"] == str(tmp_path / "out")
        assert "worker" in (folder / f"predict-{ids[0]}_{rank}.log").read_text()
    assert {found["slurm"]["SLURM_ARRAY_TASK_ID"] for found in workers} == {"0", "1", "2"}
    assert {found["slurm"]["CUDA_VISIBLE_DEVICES"] for found in workers} == {"0", "1", "2"}
    assert merge["argv"] == ["merge", "s-toytoy00", "--out_dir", str(out_dir), "--subrun_id", folder.name]
    assert (folder / f"merge-{ids[1]}.log").exists()


def test_no_merge_where_a_worker_fails(slurm, records, tmp_path):
    repository = make_repository(tmp_path / "repo", "record()\nif rank == '1': sys.exit(3)")
    ids = submit(plan(repository, tmp_path / "out", n_gpus=3))
    states = slurm.wait(ids[0], "COMPLETED", "FAILED")
    assert states == {f"{ids[0]}_0": "COMPLETED", f"{ids[0]}_1": "FAILED", f"{ids[0]}_2": "COMPLETED"}
    slurm.wait(ids[1], "CANCELLED")
    assert {found["argv"][0] for found in read_records(records)} == {"predict"}


def test_a_requeued_worker_alone_starts_again_and_the_merge_waits_for_it(slurm, records, tmp_path):
    repository = make_repository(tmp_path / "repo", REQUEUE)
    ids = submit(plan(repository, tmp_path / "out", n_gpus=3))
    slurm.wait(f"{ids[0]}_0", "COMPLETED")
    slurm.wait(f"{ids[0]}_2", "COMPLETED")
    slurm.wait(f"{ids[0]}_1", "RUNNING")
    deadline = time.monotonic() + 30
    while len(read_records(records)) < 3 and time.monotonic() < deadline:  # it listens to signals by then
        time.sleep(0.05)
    slurm.scancel("--signal=USR1", f"{ids[0]}_1")
    slurm.wait(ids[0], "COMPLETED")
    slurm.wait(ids[1], "COMPLETED")
    found = read_records(records)
    starts = [r["slurm"].get("SLURM_ARRAY_TASK_ID", "merge") for r in found if "signal" not in r]
    assert sorted(starts) == ["0", "1", "1", "2", "merge"]
    assert starts[-1] == "merge"
    assert found[-2]["slurm"]["SLURM_RESTART_COUNT"] == "1"
    log = next((tmp_path / "out" / "slurm_jobs").glob(f"*/predict-{ids[0]}_1.log")).read_text()
    assert "restart 0" in log  # the second start appends
    assert "restart 1" in log


def test_shipped_scripts_by_hand_and_a_time_limit(slurm, records, tmp_path, monkeypatch):
    """SLURM signals the program itself before the time limit; two of four workers are started."""
    repository = make_repository(tmp_path / "repo", REQUEUE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("LIT_ATTR_COMMAND", f"{sys.executable} -P -m lit_attr.cli.main")
    monkeypatch.setenv("LIT_ATTR_SUBRUN_ID", "da-20250101_000000")
    monkeypatch.setenv("LIT_ATTR_WORLD_SIZE", "4")
    limit = ("--time=1", "--signal=SIGUSR1@45")
    job = slurm.sbatch("--array=1,3", "--gpus-per-node=0", *limit, SHIPPED / "array.sbatch", "--model.run", "my run")
    after = (f"--dependency=afterok:{job}", "--kill-on-invalid-dep=yes")
    merge = slurm.sbatch(*after, SHIPPED / "merge.sbatch", "my run", "--allow_partial")
    slurm.wait(job, "COMPLETED", timeout=90)
    slurm.wait(merge, "COMPLETED")
    found = read_records(records)
    assert [r["signal"] for r in found if "signal" in r] == ["SIGUSR1"]
    shown = slurm.call("scontrol", "show", "job", "--oneliner", f"{job}_1")  # a worker learns its time limit from this
    start, end = re.search(r"\bStartTime=([\d:T-]+) EndTime=([\d:T-]+)", shown).groups()
    assert datetime.fromisoformat(start) <= datetime.fromisoformat(end)
    assert found[-1]["argv"] == ["merge", "my run", "--allow_partial", "--subrun_id", "da-20250101_000000"]
    ranks = {(r["argv"][2], *r["argv"][-6:]) for r in found[:-1]}
    end = ("4", "--writer.subrun_id", "da-20250101_000000")
    assert ranks == {("my run", "--data.rank", rank, "--data.world_size", *end) for rank in "13"}


def test_an_array_that_runs_two_workers_at_once_and_a_merge_that_is_refused(slurm, records, tmp_path):
    """The array is cancelled with the merge that it would have had."""
    repository = make_repository(tmp_path / "repo", "record()\ntime.sleep(0.5)\nrecord(end=True)")
    ids = submit(plan(repository, tmp_path / "out", n_gpus=4, max_concurrent=2))
    slurm.wait(ids[1], "COMPLETED")
    running, most = 0, 0
    for one in sorted(read_records(records), key=lambda one: one["time"]):
        running += -1 if "end" in one else 1
        most = max(most, running)
    assert most == 2
    jobs = plan(repository, tmp_path / "out", n_gpus=2, merge_mem="100T")  # no node has that
    slurm.hold(True)
    with pytest.raises(
        LaunchError, match=r"refused merge\.sbatch: .*; job \d+ was cancelled, nothing is left"
    ) as refused:
        submit(jobs)
    assert set(slurm.states(re.search(r"job (\d+)", str(refused.value))[1]).values()) == {"CANCELLED"}
    assert not jobs.folder.exists()


def test_ddp(slurm, records, tmp_path):
    """Two processes of one step, which end together; what srun tells them is what Lightning needs."""
    repository = make_repository(tmp_path / "repo", "record()\nif rank == '1': sys.exit(3)\ntime.sleep(60)")
    (job,) = submit(plan(repository, tmp_path / "out", n_gpus=2, mode="ddp"))
    slurm.wait(job, "FAILED", timeout=30)
    found = read_records(records)
    assert {r["slurm"]["SLURM_PROCID"] for r in found} == {"0", "1"}
    assert {r["slurm"]["SLURM_NTASKS"] for r in found} == {"2"}
    subrun = next((tmp_path / "out" / "slurm_jobs").iterdir())
    options = f"--trainer.num_nodes 1 --trainer.devices 2 --trainer.strategy ddp --writer.subrun_id {subrun.name}"
    assert found[0]["argv"] == ["predict", "--config", str(subrun / "config.yaml"), *shlex.split(options)]


def test_what_slurm_refuses_leaves_nothing_behind(slurm, records, tmp_path):
    repository = make_repository(tmp_path / "repo")
    jobs = plan(repository, tmp_path / "out", n_gpus=2, partition="nowhere")
    with pytest.raises(LaunchError, match=r"sbatch refused array\.sbatch: .*invalid partition specified: nowhere"):
        submit(jobs)
    with pytest.raises(LaunchError, match=r"takes in one array: at most 1001 workers \(MaxArraySize is 1001\)"):
        submit(plan(repository, tmp_path / "out", n_gpus=1002))
    assert list((tmp_path / "out" / "slurm_jobs").iterdir()) == []
    assert git(repository, "branch", "--format=%(refname:short)") == "trunk\n"
    assert len(git(repository, "worktree", "list").splitlines()) == 1
