"""A stand-in for SLURM's own program."""

import os

import pytest


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Writes down what it is asked for; the file that it writes to."""
    (tmp_path / "bin").mkdir()
    said = tmp_path / "scontrol.txt"
    said.touch()
    program = tmp_path / "bin" / "scontrol"
    shows = f'[ "$1" != show ] || exec cat {said}.job'
    fails = f'test ! -e {said}.fail || {{ echo "no such job" >&2; exit 1; }}'
    program.write_text(f'#!/bin/sh\n{shows}\necho "$@" >> {said}\n{fails}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    return said
