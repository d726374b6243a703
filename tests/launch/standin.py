"""A stand-in for the package, in a git repository of its own: what the jobs' commands do is up to the test."""

import json
import shlex
import subprocess
from pathlib import Path

from lit_attr.launch.code import Code
from lit_attr.launch.jobs import Harvest, Jobs
from lit_attr.launch.request import Request

# Each command appends a line about itself to $RECORDS; then `_BODY` is run.
_PROGRAM = """\
import json, os, pathlib, signal, subprocess, sys, time

VERSION = {version!r}
records = pathlib.Path(os.environ["RECORDS"])

def record(**entries):
    entries |= {{"argv": sys.argv[1:], "version": VERSION, "cwd": os.getcwd(), "time": time.time()}}
    entries |= {{"slurm": {{k: v for k, v in os.environ.items() if k.startswith(("SLURM_", "CUDA_", "LIT_ATTR_"))}}}}
    with records.open("a") as file:
        file.write(json.dumps(entries) + "\\n")

def wait_until(count):
    while len(records.read_text().splitlines()) < count:
        time.sleep(0.05)

rank = os.environ.get("SLURM_ARRAY_TASK_ID") or os.environ.get("SLURM_PROCID")
is_merge = sys.argv[1] == "merge"
again = "SLURM_RESTART_COUNT" in os.environ
{body}
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def write_program(repository: Path, version: str, body: str) -> None:
    main = repository / "lit_attr" / "cli" / "main.py"
    main.parent.mkdir(parents=True, exist_ok=True)
    for folder in (main.parent, main.parent.parent):
        (folder / "__init__.py").touch()
    main.write_text(_PROGRAM.format(version=version, body=body))


def make_repository(folder: Path, body: str = "record()") -> Path:
    """A repository with a committed program of version `committed`."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "trunk")
    write_program(folder, "committed", body)
    (folder / ".gitignore").write_text("__pycache__/\n*.log\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def plan(repository: Path, out_dir: Path, on_cpu: bool = True, target_shards: int = 1, **request: object) -> Jobs:
    """Jobs that run the stand-in."""
    harvest = Harvest("model: {}\n", "s-toytoy00", out_dir / "results", str(out_dir), None, on_cpu, target_shards)
    code = Code.choose(repository / "lit_attr", (out_dir,), None)
    return Jobs.plan(Request(**request), harvest, code)


def read_records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fake_slurm(folder: Path, log: Path) -> None:
    """Programs sbatch, whose n-th job is 100 + n, and scancel, which only write down what they are given; scontrol."""
    folder.mkdir()
    file = shlex.quote(str(log))
    note = f'echo "$(basename "$0") $*" >> {file}'
    programs = {"sbatch": f"{note}\necho $((100 + $(wc -l < {file})))", "scancel": note}
    programs["scontrol"] = "printf 'MaxArraySize            = 1001\\nMaxJobCount             = 10000\\n'"
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
