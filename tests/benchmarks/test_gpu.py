import json

import pytest

from benchmarks import gpu

pytestmark = pytest.mark.slow


def run(tmp_path, monkeypatch):
    """Run the script without a GPU; its exit code and what it wrote."""
    out = tmp_path / "gpu.json"
    monkeypatch.setattr("sys.argv", ["gpu.py", "--cpu", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    return ended.value.code, json.loads(out.read_text())


def test_the_reduced_set(tmp_path, monkeypatch, capsys):
    code, report = run(tmp_path, monkeypatch)
    assert code == 0, report
    assert report["machine"]["torch"]
    results = {name: record["result"] for name, record in report["stages"].items()}
    assert "passed" in results["tests"]["said"]
    assert 0 < results["correctness"]["largest_difference"] < 1e-5
    assert 0 < results["kernel"]["largest_error"] < 1e-6
    assert 0 <= results["harvest"]["cpu x 2"] < 1e-4
    assert 0 < results["ss-2l 0.01"]["fraction_of_matmul_rate"] < 1
    assert results["ss-2l 0.01"]["reads_per_batch"]["_unique2"] == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == list(report["stages"])


def test_stages_that_fail_stop_no_others(tmp_path, monkeypatch):
    hangs = "import subprocess; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    stages = [
        gpu.Stage("fails", ("-c", "print('why'); raise SystemExit(3)"), 60),
        gpu.Stage("hangs", ("-c", hangs), 3),
        gpu.Stage("wrong", ("-c", 'print(\'{"right": false, "off": 0.5}\')'), 60),
        gpu.Stage("right", ("-c", "print('said before\\n{\"right\": true}')"), 60),
    ]
    monkeypatch.setattr(gpu, "ON_CPU", stages)
    code, report = run(tmp_path, monkeypatch)
    fails, hangs, wrong, right = report["stages"].values()
    assert code == 1
    assert (fails["ok"], fails["error"], fails["said"]) == (False, "it ended with 3", "why\n")
    assert (hangs["ok"], hangs["error"], hangs["said"]) == (False, "it took more than 3 s", "begun\n")
    assert hangs["seconds"] < 30
    assert (wrong["ok"], wrong["result"]["off"]) == (False, 0.5)
    assert right["ok"]

    monkeypatch.setattr(gpu, "_ALL_S", 0)
    assert {record["error"] for record in run(tmp_path, monkeypatch)[1]["stages"].values()} == {
        "not run: no time was left"
    }
