"""Whole harvests, timed, and the run of a shape that they harvest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.shapes import Shape, write_run
from lit_attr.decomposition.load import load_run

ROOT = Path(__file__).parents[2]


def test_a_run_of_a_shape_has_the_density(tmp_path):
    shape = Shape(1, 16, 32, 2, 1, 50, 64, {"mlp.c_fc": 24, "attn.o_proj": 12})
    write_run(tmp_path / "run", shape, 0.05)
    tokens = torch.randint(0, 50, (8, 64), generator=torch.Generator().manual_seed(1))
    for layer, ci in load_run(tmp_path / "run").model.causal_importance(tokens).items():
        assert (ci > 0).float().mean((0, 1)) == pytest.approx(0.05, abs=0.003), layer


@pytest.mark.slow
def test_what_a_process_takes():
    command = [sys.executable, "benchmarks/end_to_end.py", "--sizes", "1000", "200000", "--json"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = output.splitlines()  # the demo does not have more tokens
    measured = json.loads(line)
    assert (measured["run"], measured["tokens"]) == ("demo", 1024)
    assert 0 < measured["tokens_per_second"] == pytest.approx(1024 / measured["wall_seconds"])
    assert measured["cpu_seconds"] > 1
    assert 100 < measured["peak_mb"] < 8000


@pytest.mark.slow
def test_what_standard_errors_take():
    command = [sys.executable, "benchmarks/uncertainty.py", "--size", "2000", "--rows", "8", "--repeats", "1"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    measured = json.loads(output)
    assert (measured["run"], measured["batches"]) == ("demo", 8)
    assert measured["ratio"] == pytest.approx(measured["cpu_seconds_true"] / measured["cpu_seconds_false"], rel=0.01)
