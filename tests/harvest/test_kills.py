import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [["--kills", "150"], ["--kills", "50", "--without_links"], ["--kills", "50", "--target_shards", "2"]],
    ids=["links", "copies", "shards"],
)
def test_two_hundred_kills_lose_and_double_nothing(options):
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    found = json.loads(done.stdout)
    assert found["kills"] >= int(options[1])
    assert found["mistakes"] == []
    assert [found[name] for name in ("lost", "doubled", "unequal")] == [0, 0, 0]
