"""The commands of the documentation, executed with small stand-ins for runs and data."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lit_attr.cli.main import main
from tests.toys import write_run, write_tokens

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:<!-- (test: [\w ]+) -->\n)?```(?:bash|python)\n(.*?)```", re.DOTALL)
FOUND = {
    marker: code for page in sorted((ROOT / "docs").glob("*.md")) for marker, code in BLOCK.findall(page.read_text())
}
# Executed beside the code that they are about.
ELSEWHERE = {
    *("test: svd", "test: own class", "test: own decomposition", "test: view", "test: view build"),
    *("test: scale gpt2", "test: scale llama"),
}
HERE = {"test: submit", "test: submit shards", "test: workers", "test: shards", "test: status", "test: api"}
TUTORIAL = [marker for marker in FOUND if marker.startswith("test: tutorial ")]


@pytest.fixture
def values(tmp_path):
    run, tokens = write_run(tmp_path / "spd-s-toytoy00"), write_tokens(tmp_path / "t.npy", 128)
    return {"TOKENS.npy": str(tokens), "RUN_ID": "s-toytoy00", "RUN": str(run)}


def execute(marker, values):
    for line in FOUND[marker].splitlines():
        for placeholder, value in values.items():
            line = re.sub(rf"{re.escape(placeholder)}\b", value, line)
        program, *arguments = shlex.split(line)
        assert program == "lit-attr"
        assert main(arguments) == 0, line


def test_every_block_of_commands_is_executed():
    assert FOUND.keys() == HERE | ELSEWHERE | set(TUTORIAL)


def test_submit(values, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    execute("test: submit", values)
    assert "--array=0-23" in capsys.readouterr().out
    execute("test: submit shards", values)
    assert "\ntarget_shards=4\n" in capsys.readouterr().out


def test_workers(values, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    execute("test: workers", values)
    execute("test: status", values)
    assert "coverage: all 4 batches" in capsys.readouterr().out


@pytest.mark.slow
def test_shards(values, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    execute("test: shards", values)
    execute("test: status", values)
    out = capsys.readouterr().out
    assert "target shard 1: 4 of 4 batches, 1 of 1 workers done" in out
    assert "coverage: all 4 batches" in out


@pytest.mark.slow
def test_tutorial(tmp_path, monkeypatch, capsys):
    """In its order, as one reader would; what the text says of answers is in them."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(tmp_path / "out"))
    shown = {}
    for marker in TUTORIAL:
        if marker == "test: tutorial python":
            exec(FOUND[marker], {})
        else:
            execute(marker, {})
        shown[marker.rpartition(" ")[2]] = capsys.readouterr().out
    assert "not harvested" in shown["map"]
    assert re.search(r"da-\w+ of s-litdemo0, checkpoint model_\d+\.pth; 32,768 tokens", shown["map"])
    assert re.search(r"output:20 .*\+0\.48.*output:18 .*-0\.19[78]", shown["word"], re.DOTALL)
    assert re.search(r"1\.attn\.v:38 .*\+2\.9[78].*1\.attn\.v:35 .*-2\.0[45]", shown["chain"], re.DOTALL)
    for name in ("Lily", "Emma", "Zoe", "Mia", "Anna", "Sam", "Tom", "Max", "Ben", "Jack"):
        assert re.search(rf'"{name}" .*-0\.', shown["chain"])
    assert re.search(r"1\.attn\.v:38 \+2\.9\d +Lily -0\.5[89]", shown["python"])
    pictures = {"mass.png", "subgraph.png", "component.png", "stability.png"}
    pictures |= {"convergence.png", "volcano.png"}
    exports = {"edges.parquet", "pronouns.graphml", "small.pt", "tensors"}
    assert {path.name for path in tmp_path.iterdir()} == {"configs", "out"} | pictures | exports


@pytest.mark.slow
def test_api(tmp_path):
    python, script, folder = shlex.split(FOUND["test: api"])
    assert (python, folder) == (".venv/bin/python", "site")
    done = subprocess.run(
        [sys.executable, script, str(tmp_path / folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "site" / "lit_attr" / "harvest" / "harvester.html").read_text()
    assert "AttributionHarvester" in page
