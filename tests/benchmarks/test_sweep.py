"""The sweep, of one point each."""

import json

import pytest

from benchmarks import sweep


@pytest.mark.slow
def test_one_point_of_each(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "SWEEPS", {name: [value] for name, value in sweep.USUAL.items()})
    monkeypatch.setattr("sys.argv", ["sweep.py", "--rounds", "1", "--out", str(tmp_path)])
    sweep.main()
    found = json.loads((tmp_path / "performance.json").read_text())
    for name, usual in sweep.USUAL.items():
        (point,) = found[name]
        assert point[name] == usual
        assert point["seconds"] > 0
    assert "<svg" in (tmp_path / "performance.svg").read_text()
