import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = {"shape": "demo", "batch": 2, "density": 0.05, "rounds": 1, "sample": 1}


def run(*flags, **changes):
    options = [f"--{name}={value}" for name, value in {**OPTIONS, **changes}.items()]
    command = [sys.executable, "benchmarks/harvest.py", *options, *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_one_json_object_with_what_the_gates_are_about():
    (line,) = run("--json").splitlines()
    result = json.loads(line)
    assert (result["shape"], result["batch"]) == ("demo", 2)
    assert result["density"] == pytest.approx(0.05, rel=0.2)
    for name in (
        "tokens_per_second",
        "ratio_to_autograd",
        "ratio_to_two_forwards",
        "attr_alone_ratio_to_autograd",
        "attr_alone_ratio_to_two_forwards",
        "fraction_of_matmul_rate",
        "peak_mb",
    ):
        assert result[name] > 0, name
    assert 0 < result["fraction_of_matmul_rate"] < 1
    assert set(result["seconds_by_edge"]) == {"stream", "mlp", "value", "query", "key"}
    assert all(seconds > 0 for seconds in result["seconds_by_edge"].values())


@pytest.mark.slow
def test_a_table_without_the_flag():
    lines = [line.split() for line in run(sample=0).splitlines()]
    assert {"tokens_per_second", "seconds_by_edge"} <= {line[0] for line in lines}
    assert "ratio_to_autograd" not in {line[0] for line in lines}
