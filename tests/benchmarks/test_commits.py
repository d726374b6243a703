"""The benchmark of commits, with small sums."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "commits.py"


@pytest.mark.slow
def test_a_small_one():
    command = [sys.executable, str(SCRIPT), "--mb", "2", "--commits", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["commits"] == len(found["seconds_each"]) == 2
    assert 0 < found["share"] < 1
