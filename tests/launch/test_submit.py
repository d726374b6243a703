"""Submission, with an sbatch that only writes down what it is given."""

import shlex
import shutil

import pytest

from lit_attr.cli.main import main
from lit_attr.errors import LaunchError
from lit_attr.launch.report import code_report, submission_report
from lit_attr.launch.request import Request
from lit_attr.launch.submit import submit
from lit_attr.launch.time_limit import check_time_limit, seconds
from lit_attr.topology.words import MERGED_FILE
from tests.launch.standin import fake_slurm, git, make_repository, plan


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Folder of the programs that stand in for SLURM's."""
    fake_slurm(tmp_path / "bin", tmp_path / "calls")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path / "bin"


def calls(tmp_path):
    return (tmp_path / "calls").read_text().splitlines()


def test_array_and_merge(sbatch, tmp_path):
    repository = make_repository(tmp_path / "repo")
    (repository / "big").write_bytes(b"x" * 12_000_000)
    jobs = plan(repository, tmp_path / "out", n_gpus=3)
    ids = submit(jobs)
    assert ids == ["101", "102"]
    assert calls(tmp_path) == [
        f"sbatch --parsable {jobs.folder}/array.sbatch",
        f"sbatch --parsable --dependency=afterok:101 --kill-on-invalid-dep=yes {jobs.folder}/merge.sbatch",
    ]
    assert {path.name for path in jobs.folder.iterdir()} == {"array.sbatch", "merge.sbatch", "config.yaml", "code"}
    code = code_report(jobs)
    assert f"a snapshot of {repository} with all changes: branch {jobs.branch}" in code
    assert "without big (12.0 MB)" in code
    report = submission_report(jobs, ids)
    for part in (
        "101 (3 workers), then 102 (merge",
        f"{jobs.folder}/predict-101_*.log and merge-102.log",
        str(jobs.harvest.results / jobs.subrun_id / MERGED_FILE),
        "squeue --jobs=101,102",
        f"lit-attr status s-toytoy00 --subrun_id {jobs.subrun_id} --out_dir {tmp_path}/out",
        "scancel 101 102",
        f"sbatch --array=TASKS {jobs.folder}/array.sbatch",
        f"git -C {repository} branch -D {jobs.branch}",
    ):
        assert part in report
    tidy = [line[10:] for line in report.splitlines() if "git -C" in line]
    assert len(tidy) == 2
    for command in tidy:
        git(repository, *shlex.split(command)[3:])


def test_two_submissions_of_a_second_have_their_own_folders(sbatch, tmp_path):
    repository = make_repository(tmp_path / "repo")
    folders = set()
    for _ in range(3):
        jobs = plan(repository, tmp_path / "out", n_gpus=1, mode="ddp")
        submit(jobs)
        folders.add((jobs.folder, jobs.subrun_id, jobs.branch))
    assert len(folders) == 3


def test_the_merge_is_refused(sbatch, tmp_path):
    (sbatch / "sbatch").write_text(
        '#!/bin/bash\n[[ "$*" != *merge.sbatch ]] && echo "7;cluster" || { echo "no  memory" >&2; exit 1; }'
    )
    repository = make_repository(tmp_path / "repo")
    jobs = plan(repository, tmp_path / "out", n_gpus=3)
    undone = "job 7 was cancelled, nothing is left behind"
    with pytest.raises(LaunchError, match=rf"^sbatch refused merge\.sbatch: no memory; {undone}$"):
        submit(jobs)
    assert calls(tmp_path) == ["scancel 7"]
    assert_untouched(repository, jobs)


def assert_untouched(repository, jobs):
    assert not jobs.folder.exists()
    assert git(repository, "branch", "--format=%(refname:short)") == "trunk\n"
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_what_cannot_be_undone_is_said_with_the_command(sbatch, tmp_path, monkeypatch):
    (sbatch / "sbatch").write_text('#!/bin/bash\n[[ "$*" != *merge.sbatch ]] && echo 7\n')
    (sbatch / "scancel").write_text('#!/bin/bash\necho "slurmctld is  away" >&2\nexit 1\n')
    repository = make_repository(tmp_path / "my repo")
    jobs = plan(repository, tmp_path / "out", n_gpus=3)

    def refuse(*_):
        raise LaunchError("git worktree failed: busy")

    monkeypatch.setattr("lit_attr.launch.code.discard", refuse)
    with pytest.raises(LaunchError) as refused:
        submit(jobs)
    message = str(refused.value)
    assert "job 7 could not be cancelled (slurmctld is away): scancel 7" in message
    assert "the snapshot could not be removed (git worktree failed: busy): " in message
    for command in message.rpartition("busy): ")[2].split("; "):
        git(repository, *shlex.split(command)[3:])
    assert "nothing is left" not in message
    shutil.rmtree(jobs.folder)
    assert_untouched(repository, jobs)


def test_a_branch_of_an_earlier_submission_stays(sbatch, tmp_path):
    """Its folder was removed, so that the name is taken again."""
    repository = make_repository(tmp_path / "repo")
    jobs = plan(repository, tmp_path / "out", n_gpus=3)
    git(repository, "branch", jobs.branch)
    with pytest.raises(LaunchError, match=r"git update-ref failed .*; nothing is left behind"):
        submit(jobs)
    git(repository, "branch", "-D", jobs.branch)
    assert_untouched(repository, jobs)


@pytest.mark.parametrize(
    ("configuration", "n_gpus", "message"),
    [
        ("MaxArraySize            = 4", 4, None),
        ("MaxArraySize            = 4", 5, "at most 4 workers (MaxArraySize is 4)"),
        ("MaxArraySize = 1001\nMaxJobCount             = 5", 4, None),
        ("MaxArraySize = 1001\nMaxJobCount             = 5", 5, "at most 4 workers (MaxJobCount is 5)"),
        ("MaxArraySize            = (null)", 5, None),
        ("", 5, None),
    ],
)
def test_arrays_above_the_limits_of_the_site(sbatch, tmp_path, configuration, n_gpus, message):
    """Refused before anything is written; where SLURM does not tell, sbatch decides."""
    (sbatch / "scontrol").write_text(f"#!/bin/bash\ncat <<END\n{configuration}\nEND\n")
    jobs = plan(make_repository(tmp_path / "repo"), tmp_path / "out", n_gpus=n_gpus)
    if message is None:
        assert submit(jobs) == ["101", "102"]
        return
    with pytest.raises(LaunchError) as refused:
        submit(jobs)
    assert f"--n_gpus {n_gpus} is more than this site's SLURM takes in one array: {message}." in str(refused.value)
    assert not (tmp_path / "calls").exists()
    assert not jobs.folder.exists()


def test_limits_of_arrays_are_not_those_of_ddp(sbatch, tmp_path):
    (sbatch / "scontrol").write_text("#!/bin/bash\necho MaxArraySize = 1\n")
    assert submit(plan(make_repository(tmp_path / "repo"), tmp_path / "out", n_gpus=3, mode="ddp")) == ["101"]


def test_the_most_workers_at_once(sbatch, tmp_path):
    jobs = plan(make_repository(tmp_path / "repo"), tmp_path / "out", n_gpus=24, max_concurrent=4)
    assert "\n#SBATCH --array=0-23%4\n" in jobs.scripts["array"]
    assert "\nworld_size=24\n" in jobs.scripts["array"]
    assert "101 (24 workers, at most 4 at once), then 102" in submission_report(jobs, submit(jobs))


def test_a_folder_that_cannot_be_made(sbatch, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(LaunchError, match=r"cannot create the folder .*/out/slurm_jobs/da-"):
        submit(plan(make_repository(tmp_path / "repo"), tmp_path / "out", n_gpus=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_gpus": 0}, "--n_gpus must be at least 1, found 0"),
        ({"max_concurrent": 0}, "--max_concurrent must be at least 1, found 0"),
        ({"mode": "ddp", "max_concurrent": 2}, "--max_concurrent is for --mode array"),
        ({"gpus_per_node": 0}, "--gpus_per_node must be at least 1, found 0"),
        ({"mode": "ddp", "n_gpus": 12}, "--n_gpus 12 is no multiple of --gpus_per_node 8: every machine"),
        ({"time": "1h"}, "--time must be minutes, M:SS, H:MM:SS or D-HH:MM:SS, found '1h'"),
        ({"merge_time": "1:2:3:4"}, "--merge_time must be minutes"),
        ({"merge_mem": "lots"}, "--merge_mem must be a number with K, M, G or T behind it, found 'lots'"),
        ({"partition": "a b"}, "--partition must be letters, digits"),
        ({"job_suffix": "x\n#SBATCH --wrap=id"}, "--job_suffix must be letters, digits"),
    ],
)
def test_values_that_make_no_sense(change, message):
    with pytest.raises(LaunchError, match=message.replace("(", r"\(")):
        Request(**{"n_gpus": 4, **change})


@pytest.mark.parametrize(
    ("time", "length"),
    [
        *[("90", 5400), ("1:30", 90), ("12:00:00", 43200), ("1-12", 129600), ("2-0:30", 174600), ("0:0:90", 90)],
        *[("2-00:30:01", 174601), ("unlimited", None), ("0", None), ("00:00:00", None)],
    ],
)
def test_all_forms_of_a_time(time, length):
    assert Request(1, time=time).time == time
    assert seconds(time) == length


@pytest.mark.parametrize("mode", ["array", "ddp"])
def test_a_time_limit_that_leaves_nothing_before_its_warning(mode, monkeypatch):
    """The warning is what the shipped scripts ask for, 120 s, which SLURM may send a minute earlier."""
    for time in ("1", "2:00", "3", "0-0:3", "0:3:00"):
        with pytest.raises(LaunchError, match=rf"limit of \d+ s \(--time {time}\) is over .* warns it 120 s before"):
            check_time_limit(Request(1, mode, time=time), {})
    for time in (None, "4", "3:01", "UNLIMITED", "0"):
        check_time_limit(Request(1, mode, time=time), {})
    check_time_limit(Request(1, mode, time="3"), {"SBATCH_SIGNAL": "B:USR1@30"})
    with pytest.raises(LaunchError, match=r"a time limit of 7200 s \(SBATCH_TIMELIMIT=120\) .* warns it 7200 s"):
        check_time_limit(Request(1, mode, time="4"), {"SBATCH_TIMELIMIT": "120", "SBATCH_SIGNAL": "USR1@7200"})
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["submit", "--n_gpus", "1", "--mode", mode, "--time", "1", "--dry_run"]) == 2
