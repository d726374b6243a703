"""Every command of the README, executed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lit_attr.cli.main import main
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
    assert blocks == [
        f"<!-- {m} -->" for m in ("ci: install", "ci: test", "test: harvest", "test: query", "test: python")
    ]


def test_harvest_and_query(values, monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    for line in (block("test: harvest") + block("test: query")).splitlines():
        program, *arguments = shlex.split(fill_in(line, values))
        assert program == "lit-attr"
        assert main(arguments) == 0
    assert "strongest negative targets" in capfd.readouterr().out


@pytest.mark.slow
def test_python(values):
    script = fill_in(block("test: python"), values)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\S+:\d+ [\d.]+$", done.stdout, re.MULTILINE)


def test_ci_takes_its_commands_from_here():
    ci = (ROOT / ".ci" / "run").read_text()
    for name in ("install", "test"):
        assert f"$(readme {name})" in ci
        assert block(f"ci: {name}").strip()


def test_every_command_is_in_the_table():
    from lit_attr.cli.main import _COMMANDS

    for command in _COMMANDS:
        assert f"`lit-attr {command} " in README
