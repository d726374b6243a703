import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lit_attr.launch.code import Code
from lit_attr.launch.jobs import Harvest, Jobs
from lit_attr.launch.render import render, template
from lit_attr.launch.request import Request

SHIPPED = Path(__file__).parents[2] / "slurm"
VARIABLES = ("subrun_id", "world_size", "target_shards", "program", "code_dir", "out_dir", "script", "arguments")
# Everything that a shell, or sbatch, could take for something else.
NASTY = ["a b", "it's", 'say "hi"', "$HOME", "`id`", "back\\slash", "*", "", "--x=%j", "ü;|&<>"]
# Puts its arguments, and what the job sets, into a file.
PROGRAM = "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], open('called', 'w'))"


def without_values(script):
    """A script less the values of its #SBATCH lines and filled-in variables."""
    script = re.sub(r"^#+SBATCH --([\w-]+)=.*$", r"#SBATCH --\1", script, flags=re.MULTILINE)
    head, mark, rest = script.partition("# `lit-attr submit` fills these in.\n")
    assert mark
    block, *rest = rest.partition("\n\n")
    names = [line.partition("=")[0] for line in block.splitlines()]
    assert set(names) <= set(VARIABLES)
    return "".join([head, *names, *rest])


def jobs(mode="array", **harvest):
    request = Request(24, mode, partition="gpu", time="1:00:00", merge_time="5", merge_mem="3G", job_suffix="x")
    given = Harvest("{}", "s-toytoy00", Path("results"), **{"out_dir": "my out", **harvest})
    return Jobs.plan(request, given, Code())


@pytest.mark.parametrize("on_cpu", [False, True])
@pytest.mark.parametrize(("mode", "names"), [("array", ["array", "merge"]), ("ddp", ["predict"])])
def test_rendered_scripts_are_the_shipped_ones_but_for_values(mode, names, on_cpu):
    scripts = jobs(mode, on_cpu=on_cpu).scripts
    assert list(scripts) == names
    for name, script in scripts.items():
        shipped = (SHIPPED / f"{name}.sbatch").read_text()
        assert script != shipped
        assert without_values(script) == without_values(shipped)


def sbatch_values(script):
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE))


def test_values_of_an_array_and_its_merge():
    found = jobs()
    array, merge = (sbatch_values(found.scripts[name]) for name in ("array", "merge"))
    assert array["array"] == "0-23"
    assert (array["job-name"], array["partition"], array["time"]) == ("lit-attr-x", "gpu", "1:00:00")
    assert array["gpus-per-node"] == "1"
    assert array["output"] == f"'{found.folder}/predict-%A_%a.log'"
    assert array["signal"] == "SIGUSR1@120"  # without B:, which would signal the shell alone
    assert (merge["job-name"], merge["partition"], merge["time"]) == ("lit-attr-merge-x", "gpu", "5")
    assert merge["mem"] == "3G"
    assert "gpus-per-node" not in merge


@pytest.mark.parametrize(("n_gpus", "per_node", "nodes", "tasks"), [(24, 8, 3, 8), (4, 8, 1, 4), (8, 4, 2, 4)])
def test_machines_of_ddp(n_gpus, per_node, nodes, tasks):
    request = Request(n_gpus, "ddp", gpus_per_node=per_node)
    values = sbatch_values(Jobs.plan(request, Harvest("", "r", Path()), Code()).scripts["predict"])
    assert (values["nodes"], values["ntasks-per-node"], values["gpus-per-node"]) == (str(nodes), str(tasks), str(tasks))


def test_what_is_not_asked_for_stays_as_shipped():
    script = Jobs.plan(Request(4), Harvest("", "r", Path()), Code()).scripts["merge"]
    shipped = sbatch_values(template("merge"))
    assert {name: sbatch_values(script)[name] for name in ("time", "mem")} == {n: shipped[n] for n in ("time", "mem")}
    assert "partition" not in sbatch_values(script)


def test_cpus_ask_for_no_gpus():
    assert "gpus-per-node" not in sbatch_values(jobs(on_cpu=True).scripts["array"])


def test_an_unknown_line_is_refused():
    with pytest.raises(KeyError, match="nothing"):
        render(template("array"), {"nothing": "1"}, {})


@pytest.mark.parametrize("name", ["array", "predict", "merge"])
def test_words_and_paths_arrive_as_they_are(name, tmp_path):
    """The script is run by bash, with an srun that drops its own options."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    srun.chmod(0o755)
    variables = {
        "subrun_id": "da-1",
        "program": [sys.executable, "-c", PROGRAM],
        "code_dir": "/my code/$x",
        "out_dir": "out 'dir'",
        "arguments": NASTY,
    }
    if name != "merge":
        variables["script"] = "my $script"
    (tmp_path / "job").write_text(render(template(name), {"chdir": NASTY[0]}, variables))
    environment = {"PATH": f"{srun.parent}:{os.environ['PATH']}", "PYTHONPATH": "before", "SLURM_JOB_ID": "1"}
    environment |= {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_NTASKS": "2"}
    environment |= {"SLURM_JOB_NODELIST": "n", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "2"}
    with open(tmp_path / "the log", "a") as log:
        subprocess.run(["bash", "job", "more words"], cwd=tmp_path, env=environment, stdout=log, check=True)
    arguments, found = json.loads((tmp_path / "called").read_text())
    assert arguments[: len(NASTY) + 2] == ["merge" if name == "merge" else "predict", *NASTY, "more words"]
    assert arguments[-2:] == [f"--{'' if name == 'merge' else 'writer.'}subrun_id", "da-1"]
    assert found["PYTHONPATH"] == "/my code/$x:before"
    assert found["LIT_ATTR_OUT_DIR"] == "out 'dir'"
    if name != "merge":
        assert (found["LIT_ATTR_SCRIPT"], found["LIT_ATTR_LOG"]) == ("my $script", str(tmp_path / "the log"))


@pytest.mark.parametrize("name", ["array", "predict"])
def test_a_sigterm_to_the_shell_does_not_cut_the_worker_short(name, tmp_path):
    """The shell lives as long as the worker, and ends with its exit code."""
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/bash\nkill -TERM $PPID\nsleep 0.3\ntouch committed\nexit 75\n")
    srun.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LIT_ATTR_SUBRUN_ID": "da-1", "SLURM_JOB_ID": "1"}
    environment |= {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_NTASKS": "2"}
    environment |= {"SLURM_JOB_NODELIST": "n", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "2"}
    done = subprocess.run(["bash", SHIPPED / f"{name}.sbatch", "--config", "c"], cwd=tmp_path, env=environment)
    assert done.returncode == 75
    assert (tmp_path / "committed").exists()


@pytest.mark.parametrize("name", ["array", "predict", "merge"])
def test_by_hand_the_folder_of_the_harvest_must_be_named(name, tmp_path):
    done = subprocess.run(["bash", SHIPPED / f"{name}.sbatch"], env={"PATH": os.environ["PATH"]}, capture_output=True)
    assert done.returncode != 0
    assert b"LIT_ATTR_SUBRUN_ID: is the name of the harvest's folder" in done.stderr


def test_by_hand_a_gap_in_the_array_needs_the_number_of_workers():
    environment = {"PATH": os.environ["PATH"], "LIT_ATTR_SUBRUN_ID": "da-1", "SLURM_ARRAY_TASK_ID": "7"}
    command = ["bash", SHIPPED / "array.sbatch"]
    done = subprocess.run(command, env={**environment, "SLURM_ARRAY_TASK_COUNT": "2"}, capture_output=True)
    assert done.returncode == 2
    assert b"no worker 7 of 2: set LIT_ATTR_WORLD_SIZE" in done.stderr


def test_tasks_of_a_grid(tmp_path):
    """Six workers of two target shards, as submitted: each place in the grid is there once."""
    (tmp_path / "srun").write_text('#!/bin/bash\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    grid = Jobs.plan(Request(6), Harvest("", "r", Path(), target_shards=2), Code()).scripts["array"]
    (tmp_path / "job").write_text(re.sub("^program=.*$", "program=(lit-attr)", grid, flags=re.MULTILINE))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_JOB_ID": "1"}
    keys = ("rank", "world_size", "target_shards", "target_shard")
    found = set()
    for task in range(6):
        done = {**environment, "SLURM_ARRAY_TASK_ID": str(task)}
        words = subprocess.run(["bash", "job"], cwd=tmp_path, env=done, capture_output=True, text=True).stdout.split()
        found.add(tuple(words[words.index(f"--data.{key}") + 1] for key in keys))
    assert found == {(str(rank), "3", "2", str(shard)) for rank in range(3) for shard in range(2)}
    environment |= {"LIT_ATTR_SUBRUN_ID": "da-1", "SLURM_ARRAY_TASK_ID": "0", "LIT_ATTR_TARGET_SHARDS": "2"}
    by_hand = subprocess.run(["bash", SHIPPED / "array.sbatch"], env=environment, capture_output=True)
    assert by_hand.returncode == 2
    assert b"1 workers do not divide among 2 target shards" in by_hand.stderr
