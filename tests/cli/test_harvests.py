"""`lit-attr merge`, `verify`, `status`, and what `query` says of a partial result."""

import json
import os
import time
from dataclasses import replace

import pytest

from lit_attr.cli.main import main
from lit_attr.parts.worker_record import WorkerRecord
from tests.parts.harvests import begin, commit, complete_harvest

RUN = "s-1234abcd"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out" / "dataset_attributions" / RUN / "da-20250101_000000"


def answer(capsys, *arguments, code=0):
    assert main([*map(str, arguments)]) == code
    captured = capsys.readouterr()
    return (captured.err if code else captured.out).splitlines()


def test_merge_verify_status(folder, capsys, tmp_path):
    complete_harvest(folder)
    path = folder / "dataset_attributions.pt"
    assert answer(capsys, "status", RUN) == [
        str(folder),
        "  coverage    10 of 10 batches (not merged yet)",
        "  workers     3 of 3 done",
    ]
    merged = [
        f"merged into {path}",
        f"ask it with: lit-attr query {RUN} sources KEY",
        f"view it with: lit-attr view {RUN}",
    ]
    assert answer(capsys, "merge", RUN) == merged
    for run in ([RUN, "--subrun_id", folder.name], [folder], [f"wandb:goodfire/spd/runs/{RUN}"]):
        assert answer(capsys, "merge", *run) == merged
        assert answer(capsys, "verify", *run)[0] == str(path)
        assert answer(capsys, "status", *run)[0] == str(folder)
    lines = answer(capsys, "verify", RUN, "--out_dir", tmp_path / "out")
    assert lines == answer(capsys, "verify", path)
    assert lines[0] == str(path)
    assert lines[1].startswith("  digest: sha256 ")
    assert lines[-1] == "  coverage: all 10 batches"
    assert answer(capsys, "status", RUN)[1] == "  coverage    10 of 10 batches (merged)"
    begin(folder, 3, 12)
    assert answer(capsys, "status", RUN)[1] == "  coverage    10 of 12 batches (merged when they were 10)"


def test_newest_harvest_unless_told(folder, capsys):
    complete_harvest(folder)
    newer = folder.with_name("da-20250101_000001")
    complete_harvest(newer)
    assert answer(capsys, "status", RUN)[0] == str(newer)
    assert answer(capsys, "status", RUN, "--subrun_id", folder.name)[0] == str(folder)


def test_status_of_a_running_harvest(folder, capsys, monkeypatch):
    generation, now = begin(folder, 3), 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    os.utime(generation.path, (now, now))
    commit(generation, 1, started=now - 7260, committed=now - 60, n_tokens=7_200_000)
    commit(generation, 0, [0, 3], started=now - 8000, committed=now - 4000, n_tokens=4_800_000)
    assert answer(capsys, "status", RUN) == [
        str(folder),
        "  coverage    5 of 10 batches (not merged yet)",
        "  workers     1 of 3 done",
        "  speed       1,200 tokens/s",
        "  time left   unknown",
        "  silent      worker 0, for 1:06:40: 2 of 4 batches",
    ]
    os.utime(generation.path, (now - 3600, now - 3600))
    commit(generation, 2, [2], started=now - 1000, committed=now, n_tokens=2_400_000)
    lines = answer(capsys, "status", RUN, "--silent_minutes", 100)
    assert lines[3:] == ["  speed       3,600 tokens/s", "  time left   1:06:40"]
    generation.part_path(2).unlink()
    assert answer(capsys, "status", RUN)[-1] == "  silent      worker 2, for 1:00:00: 0 of 3 batches"
    assert not any("silent" in line for line in answer(capsys, "status", RUN, "--silent_minutes", "70"))


def test_status_of_workers_that_ended(folder, capsys, monkeypatch, tmp_path):
    now = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    generation = begin(folder, 12, 40)
    log = tmp_path / "predict-7_4.log"
    log.write_text("harvesting\nslurmstepd: killed\n")
    task = replace(WorkerRecord.of_this_process(), host="node1", process=9, started=now - 7200, is_task=True)
    task = replace(task, script="/jobs/array.sbatch", log=str(log), log_inode=log.stat().st_ino)
    changes = {0: {"state": "done"}, 1: {"state": "failed", "reason": "DataError: why"}, 4: {}}
    changes |= {2: {"state": "requeued", "reason": "stopped by SIGUSR1"}, 3: {"started": now - 60}}
    for rank, changed in changes.items():
        ended = now - 60 if "state" in changed else None
        replace(task, job=f"7_{rank}", ended=ended, **changed).write(generation.record_path(rank))
    for rank in (0, *range(5, 12)):
        commit(generation, rank, committed=now - 120)
    assert answer(capsys, "status", RUN)[5:] == [
        "  failed      worker 1, 0:01:00 ago: 0 of 4 batches (node1, job 7_1, process 9)",
        "              DataError: why",
        f"              log: {log}",
        "  requeued    worker 2, 0:01:00 ago: 0 of 4 batches (node1, job 7_2, process 9)",
        "              stopped by SIGUSR1",
        f"              log: {log}",
        "  silent      worker 4, for 2:00:00: 0 of 3 batches (node1, job 7_4, process 9)",
        "              harvesting",
        "              slurmstepd: killed",
        f"              log: {log}",
        "  again       sbatch --array=1,4 /jobs/array.sbatch",
    ]
    for rank in range(12):
        replace(task, state="failed", ended=now, reason="why").write(generation.record_path(rank))
    lines = answer(capsys, "status", RUN)
    assert lines[-2:] == ["              and 2 more workers", "  again       sbatch --array=0-11 /jobs/array.sbatch"]
    for rank in range(12):
        commit(generation, rank)
    answer(capsys, "merge", RUN)
    assert len(answer(capsys, "status", RUN)) == 3


def test_partial_results_say_so_in_every_query(folder, capsys):
    generation = begin(folder, 3)
    commit(generation, 0, [0, 3])
    (error,) = answer(capsys, "merge", RUN, code=2)
    assert "of 10 batches 8 (1-2, 4-9) are missing; no file dataset_attributions_rank_1.pt, " in error
    assert "--allow_partial" in error
    path = folder / "dataset_attributions.partial.pt"
    assert answer(capsys, "merge", RUN, "--allow_partial")[0] == f"merged into {path}"
    assert answer(capsys, "verify", path)[-1].startswith("  coverage: PARTIAL, of 10 batches 8 (")
    for question in (["sources", "output:1"], ["targets", "embed:1"], ["edge", "embed:2", "output:4"]):
        assert main(["query", str(path), *question, "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["partial"] == "2 of 10 batches"
        assert captured.err == "lit-attr: PARTIAL result, of 2 of 10 batches\n"
        assert main(["query", str(path), *question]) == 0
        assert capsys.readouterr().err == "lit-attr: PARTIAL result, of 2 of 10 batches\n"
    (error,) = answer(capsys, "query", RUN, "sources", "output:1", code=2)
    assert "no result of" in error
    (error,) = answer(capsys, "verify", RUN, code=2)
    assert "no result at" in error


def test_whole_results_say_nothing(folder, capsys):
    complete_harvest(folder)
    answer(capsys, "merge", RUN)
    assert main(["query", RUN, "sources", "output:1", "--json"]) == 0
    captured = capsys.readouterr()
    assert not {"partial", "rounding"} & json.loads(captured.out).keys()
    assert captured.err == ""


def test_rounded_results_say_so_in_every_query(folder, capsys):
    complete_harvest(folder)
    (error,) = answer(capsys, "merge", RUN, "--dtype", "bfloat16", "--dense", "always", code=2)
    assert "dense always asks for a file that has float32 alone" in error
    path = folder / "dataset_attributions.compact.pt"
    assert answer(capsys, "merge", RUN, "--dtype", "bfloat16")[0] == f"merged into {path}"
    (line,) = (line for line in answer(capsys, "verify", RUN) if line.startswith("  rounding: "))
    said = line.removeprefix("  rounding: ")
    assert said.startswith("edges into components were rounded to bfloat16, each by at most 0.")
    rounding = json.loads("".join(answer(capsys, "query", RUN, "matrix", "--json")))["rounding"]
    assert rounding["dtype"] == "bfloat16"
    assert 0 < rounding["relative_error"] < 2**-8
    assert said in " ".join(answer(capsys, "query", RUN, "sources", "0.mlp.up:1"))
    for form in (["dense"], ["compact", "--dtype", "float32"]):
        assert main(["export", RUN, "--to", *form]) == 0
        captured = capsys.readouterr()
        assert captured.err == f"lit-attr: {said}; the export has these numbers in float32\n"
        assert f"  rounding: {said}" in answer(capsys, "verify", captured.out.strip())
    assert answer(capsys, "export", RUN, "--to", "compact", "--out", folder / "c.pt") == [str(folder / "c.pt")]
    assert (folder / "c.pt").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("command", ["merge", "verify", "status"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s-99999999"], "no harvest of 's-99999999' in "),
        ([RUN, "--subrun_id", "da-x"], f"no harvest da-x of '{RUN}': there is no "),
        ([RUN, "--subrun_id", "x"], "'x' is no harvest's id: expected 'da-' and a time or name"),
        ([RUN, "--subrun_id", "da-" + "x" * 5000], "is no harvest's id"),
        ([RUN, "--subrun_id", "da-../x"], "is no harvest's id"),
        (["x" * 5000], "is neither a folder nor a file, nor an id"),
        (["a\0b"], "is neither a folder nor a file, nor an id"),
        ([RUN, "--out_dir", "nowhere"], "no harvest of"),
    ],
)
def test_no_such_harvest(folder, capsys, command, arguments, message):
    complete_harvest(folder)
    (error,) = answer(capsys, command, *arguments, code=2)
    assert message in error


@pytest.mark.parametrize("command", ["merge", "verify", "status"])
def test_harvests_that_have_not_begun(folder, capsys, command):
    folder.mkdir(parents=True)
    (error,) = answer(capsys, command, RUN, code=2)
    assert str(folder) in error


def test_no_parts_and_damaged_parts(folder, capsys):
    generation = begin(folder, 2)
    (error,) = answer(capsys, "merge", RUN, code=2)
    assert "of 10 batches 10 (0-9) are missing" in error
    (error,) = answer(capsys, "merge", RUN, "--allow_partial", code=2)
    assert "no worker has committed anything yet" in error
    path = commit(generation, 0)
    path.write_bytes(path.read_bytes()[:-1])
    (error,) = answer(capsys, "merge", RUN, "--allow_partial", code=2)
    assert f"{path} does not end in a seal" in error
    assert "5 (0-8 step 2)" in error


def test_full_disk_while_merging(folder, capsys, monkeypatch):
    complete_harvest(folder)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    (error,) = answer(capsys, "merge", RUN, code=2)
    assert "cannot write " in error
    assert "No space left on device" in error
    monkeypatch.undo()
    assert main(["merge", str(folder)]) == 0


@pytest.mark.parametrize("command", ["merge", "verify", "status"])
def test_help_and_mistakes_answer_at_once(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    with pytest.raises(SystemExit) as end:
        main([command])
    assert end.value.code == 2
