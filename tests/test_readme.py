"""Every command of the README, executed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from lit_attr.cli.main import main
from lit_attr.demo.walk import main as show_walk
from tests.huggingface_toys import huggingface_config
from tests.toys import write_run, write_tokens

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(marker):
    """The code behind a marker."""
    return re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.DOTALL)[1]


@pytest.fixture
def values(tmp_path):
    run, tokens = write_run(tmp_path / "spd-s-toytoy00"), write_tokens(tmp_path / "t.npy", 4)
    return {
        "TOKENS.npy": str(tokens),
        "RUN_ID": "s-toytoy00",
        "RUN": str(run),
        "embed:17": "embed:7",
        ":5": ":1",
        ":3": ":1",
    }


def fill_in(text, values):
    for placeholder, value in values.items():
        text = re.sub(rf"{re.escape(placeholder)}\b", value, text)
    return text


def test_every_code_block_is_executed_somewhere():
    blocks = re.findall(r"(.*)\n```(?:bash|python)\n", README)
    markers = ("ci: install", "test: demo", "ci: test", "test: harvest", "shown: needs the network", "test: no run")
    assert blocks == [f"<!-- {marker} -->" for marker in (*markers, "test: query", "test: python")]


def test_harvest_and_query(values, monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    for line in (block("test: harvest") + block("test: query")).splitlines():
        program, *arguments = shlex.split(fill_in(line, values))
        assert program == "lit-attr"
        assert main(arguments) == 0
    assert "strongest negative targets" in capfd.readouterr().out


def test_harvest_without_a_run(values, tmp_path, monkeypatch, capfd):
    transformers.GPT2LMHeadModel(huggingface_config("gpt2")).save_pretrained(tmp_path / "gpt2")
    monkeypatch.chdir(ROOT)
    line = fill_in(block("test: no run"), {**values, "gpt2": str(tmp_path / "gpt2")})
    assert main(shlex.split(line)[1:]) == 0
    run_id = re.search(r"/(gpt2-svd-0\.01-\w+)/", capfd.readouterr().out)[1]
    assert main(["query", run_id, "sources", "1.mlp.up:5"]) == 0
    assert "strongest positive sources" in capfd.readouterr().out


@pytest.mark.slow
def test_python(values):
    script = fill_in(block("test: python"), values)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\S+:\d+ [\d.]+$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_demo(monkeypatch, capfd):
    """The demo's part of the first command, and the questions after it."""
    monkeypatch.chdir(ROOT)
    harvest, walk = re.findall(
        r"\.venv/bin/(lit-attr predict .*?|python -m lit_attr\.demo\.walk)(?: &&|$)", block("ci: install"), re.MULTILINE
    )
    assert main(shlex.split(harvest)[1:]) == 0
    capfd.readouterr()
    assert walk == "python -m lit_attr.demo.walk"
    show_walk([])
    shown = capfd.readouterr().out
    example = dict(re.findall(r"(\w+) +([+-]\d+\.\d\d)\b", README[README.index("How names push") :][:400]))
    assert len(example) == 12
    for name, score in example.items():
        assert float(re.search(rf"{name} +│ ([+-][\d.]+)", shown)[1]) == pytest.approx(float(score), abs=0.02)
    for line in block("test: demo").splitlines():
        assert main(shlex.split(line)[1:]) == 0
    assert "embed:" in capfd.readouterr().out


def test_wandb_command_is_understood(values):
    arguments = shlex.split(fill_in(block("shown: needs the network").split("&&")[1], {}))[2:]
    with pytest.raises(SystemExit) as end:
        main(["predict", *arguments, "--print_config"])
    assert end.value.code == 0


def test_ci_takes_its_commands_from_here():
    ci = (ROOT / ".ci" / "run").read_text()
    for name in ("install", "test"):
        assert f"$(readme {name})" in ci
        assert block(f"ci: {name}").strip()


def test_every_command_is_in_the_table():
    from lit_attr.cli.main import _COMMANDS

    for command in _COMMANDS:
        assert f"`lit-attr {command} " in README
