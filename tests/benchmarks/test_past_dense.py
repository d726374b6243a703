import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = "--n_layers 1 --d_model 64 --vocab 300 --seq_len 8 --n_batches 3"


@pytest.mark.slow
def test_a_small_model_goes_all_the_way(tmp_path):
    words = [sys.executable, "benchmarks/past_dense.py", tmp_path / "x", "--out", tmp_path / "out.json", *SMALL.split()]
    subprocess.run(list(map(str, words)), check=True, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=300)
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["result"]["components"] == 7 * 64
    assert 0 < figures["result"]["live_sources"] < 7 * 64
    assert list(figures["commands"])[:2] == ["predict, killed after 2 batches", "predict, continued"]
    assert all(figure["peak_gb"] > 0 for figure in figures["commands"].values())
