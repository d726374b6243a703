import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lit_attr.errors import DataError, StorageError
from lit_attr.files.json_file import read_object
from lit_attr.parts.worker_record import WorkerRecord, commands

PROGRAM = """
import sys
from pathlib import Path
from lit_attr.parts.worker_record import WorkerRecord
record = WorkerRecord.of_this_process()
print("the first word", flush=True)
record.write(Path(sys.argv[1]))
"""


@pytest.fixture
def record():
    return replace(WorkerRecord.of_this_process(), host="node1", job=None, script=None, is_task=False)


@pytest.fixture
def logged(record, tmp_path):
    """The record of a worker whose log holds given bytes."""

    def logged(content):
        path = tmp_path / "log"
        path.write_bytes(content)
        return replace(record, log=str(path), log_inode=path.stat().st_ino)

    return logged


@pytest.mark.parametrize("job", [{}, {"SLURM_JOB_ID": "7"}, {"SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "2"}])
def test_of_a_process(tmp_path, job):
    """Its standard output is a file; in a job, that of the job's shell counts."""
    shell = tmp_path / "shell.log"
    shell.write_text("srun: the last word\n")
    of_script = {"LIT_ATTR_SCRIPT": "/jobs/array.sbatch", "LIT_ATTR_LOG": str(shell)} if job else {}
    environment = {**os.environ, **job, **of_script}
    command = [sys.executable, "-c", PROGRAM, "a b.json"]
    with open(tmp_path / "own.log", "w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log)
        assert process.wait() == 0
    found = read_object(tmp_path / "a b.json", WorkerRecord)
    assert (found.process, found.host, found.state) == (process.pid, os.uname().nodename, "working")
    assert (found.folder, found.command) == (str(tmp_path), command)
    if job:
        assert (found.job, found.is_task) == (("6_2", True) if len(job) > 1 else ("7", False))
        assert (found.script, found.last_words()) == ("/jobs/array.sbatch", ["srun: the last word"])
    else:
        assert (found.job, found.script, found.last_words()) == (None, None, ["the first word"])
        assert [line.startswith(f"cd {tmp_path} && {sys.executable} -c ") for line in commands({0: found})] == [True]


def test_how_it_ended(record, tmp_path):
    path = tmp_path / "worker_0.json"
    record.write(path)
    assert read_object(path, WorkerRecord) == record
    for error, state, reason in (
        (DataError("two\n lines"), "failed", "two lines"),
        (KeyError("name"), "failed", "KeyError: 'name'"),
        (DataError("x" * 1000), "failed", "x" * 300 + "..."),
    ):
        ended = record.ended_by(error, stopped=False, requeued=False)
        ended.write(path)
        assert read_object(path, WorkerRecord) == ended
        assert (ended.state, ended.last_words()) == (state, [reason])
        assert ended.ended >= record.started
    assert record.ended_by(DataError(""), stopped=True, requeued=False).state == "stopped"
    assert record.ended_by(DataError(""), stopped=True, requeued=True).state == "requeued"
    assert record.done().state == "done"
    assert os.listdir(tmp_path) == [path.name]
    record.write(tmp_path / "removed" / "worker_0.json")
    assert os.listdir(tmp_path) == [path.name], "a harvest that was removed does not come back"
    path.write_text(path.read_text().replace("failed", "finished"))
    with pytest.raises(StorageError, match=r"worker_0\.json is damaged: state: Input should be 'working', "):
        read_object(path, WorkerRecord)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", []),
        (b"one\n\n two \nthree\nfour", ["two", "three", "four"]),
        (b"10 %\r20 %\r30 %\rlast\n", ["20 %", "30 %", "last"]),
        (b"\x1b[31mred\x1b[0m\x00\xff\n", ["red \N{REPLACEMENT CHARACTER}"]),
        (b"x" * 10**6, ["x" * 300 + "..."]),
        (b"first\n" + b"y" * 4085 + b"\nlast\n", ["y" * 300 + "...", "last"]),
    ],
)
def test_last_words_of_a_log(logged, content, words):
    assert logged(content).last_words() == words


def test_logs_that_cannot_be_read_from_here(logged, tmp_path):
    record = logged(b"words\n")
    assert replace(record, log_inode=1).last_words() == [], "another machine's file of that name"
    assert replace(record, log=str(tmp_path)).last_words() == []
    Path(record.log).unlink()
    assert record.last_words() == []
    os.mkfifo(record.log)
    assert record.last_words() == []


def test_commands(record):
    """One for all tasks of an array, one for all processes of a trainer, one for each other worker."""
    task = replace(record, script="/a b/array.sbatch", is_task=True)
    trainer = replace(record, script="/jobs/predict.sbatch")
    by_hand = [
        replace(record, folder="/my work", command=["lit-attr", "predict", "--data.rank", str(rank)]) for rank in (0, 1)
    ]
    assert commands({}) == []
    assert commands({3: task, 17: task}) == ["sbatch --array=3,17 '/a b/array.sbatch'"]
    found = {**dict.fromkeys([5, 0, 1, 2, 3, 9, 20, 22, 24, 26], task), 30: trainer, 31: trainer}
    assert commands({**found, **dict(enumerate(by_hand, start=40))}) == [
        "sbatch --array=0-3,5,9,20-26:2 '/a b/array.sbatch'",
        "sbatch /jobs/predict.sbatch",
        "cd '/my work' && lit-attr predict --data.rank 0",
        "cd '/my work' && lit-attr predict --data.rank 1",
    ]


def test_what_is_odd_about_a_process_ends_no_harvest(tmp_path, monkeypatch):
    """Words and names that are no text, no words at all, and a working directory that is gone."""
    path, gone = tmp_path / "worker_0.json", tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("PWD", str(gone))
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setattr("sys.orig_argv", ["python", "caf\udce9.py", "é"])
    WorkerRecord.of_this_process().write(path)
    record = read_object(path, WorkerRecord)
    assert (record.command, record.folder) == (["python", "caf?.py", "é"], str(gone))
