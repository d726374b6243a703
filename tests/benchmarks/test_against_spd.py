"""What the comparison with goodfire-ai/spd says without a checkout of it, and how it measures errors."""

import re
import sys

import pytest
import torch

from benchmarks import against_spd
from benchmarks.goodfire_spd import GoodfireSpd
from tests.toys import random_tokens, write_run


def test_a_folder_that_is_no_checkout_of_it_or_an_old_one(tmp_path):
    with pytest.raises(SystemExit, match=re.escape(f"--spd {tmp_path}: expected a checkout") + ".*, found none"):
        GoodfireSpd(tmp_path, tmp_path)
    harvester = tmp_path / "spd" / "dataset_attributions" / "harvester.py"
    harvester.parent.mkdir(parents=True)
    harvester.write_text("class AttributionHarvester: ...")
    with pytest.raises(SystemExit, match="found an older one"):
        GoodfireSpd(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("version", "message"),
    [((3, 11), "needs at least 3.12"), ((3, 13), "No module named 'no_such_package'.*pip install")],
)
def test_what_is_missing(tmp_path, monkeypatch, version, message):
    harvester = tmp_path / "spd" / "dataset_attributions" / "harvester.py"
    harvester.parent.mkdir(parents=True)
    harvester.write_text("import no_such_package\ndef finalize(): ...")
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("SPD_OUT_DIR", "")
    with pytest.raises(SystemExit, match=message):
        GoodfireSpd(tmp_path, tmp_path)


def test_errors_of_float32(tmp_path):
    run = str(write_run(tmp_path / "run"))
    results = {}
    for dtype in (torch.float32, torch.float64):
        ours = against_spd.Ours(run, dtype)
        ours.add(random_tokens(2))
        results[dtype] = ours.result()
    errors = against_spd.errors(results[torch.float32], results[torch.float64])
    assert {against_spd._kind(block) for block in errors} == {"attr", "attr_abs", "normalisers"}
    assert against_spd._kind("embed_attr_abs[0.mlp.up]") == "attr_abs"
    assert all(0 < errors[block] < 1e-4 for block in errors if "_attr" in block and not block.startswith("embed"))
    assert not any(against_spd.errors(results[torch.float64], results[torch.float64]).values())
