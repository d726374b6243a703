"""The benchmark of the viewer, on a storage that is small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.large_storage import write_large_storage
from lit_attr.query.index_build import build_index

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "view.py"


@pytest.mark.slow
def test_a_small_one(tmp_path):
    path = tmp_path / "dataset_attributions.pt"
    size = write_large_storage(path, n_components=40, n_blocks=4, vocab=400, d_model=4)
    build_index(path)
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["bytes"] == size
    assert 0 < found["again"]["median"] <= found["again"]["slowest"]
    assert found["anonymous_mb"] > 0
