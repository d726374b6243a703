import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_hundred_kills_lose_and_double_nothing():
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--kills", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    found = json.loads(done.stdout)
    assert found["kills"] >= 200
    assert found["mistakes"] == []
    assert [found[name] for name in ("lost", "doubled", "unequal")] == [0, 0, 0]
