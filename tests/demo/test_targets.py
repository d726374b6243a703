"""What the demo's own configuration leaves out, measured: its components that are no targets are fed all the same."""

from pathlib import Path

import pytest

from lit_attr import AttributionRepo
from lit_attr.cli.main import main

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
RUN = "s-litdemo0"


@pytest.mark.slow
def test_what_was_not_harvested_is_not_zero(tmp_path):
    explorers = {}
    for name, settings in (("da-demo", []), ("da-all", ["--model.alive_batches", "null"])):
        place = ["--writer.out_dir", str(tmp_path), "--writer.subrun_id", name]
        assert main(["predict", "--config", str(CONFIG), *settings, *place]) == 0
        explorers[name] = AttributionRepo.latest(RUN, tmp_path, subrun_id=name).explore()
    demo, complete = explorers["da-demo"], explorers["da-all"]
    masses, full = (
        {(pair.source_layer, pair.target_layer): pair for pair in explorer.matrix().pairs}
        for explorer in (demo, complete)
    )
    assert all(pair.harvested == 1 for pair in full.values())
    for pair in (("embed", "0.attn.k"), ("embed", "0.attn.q"), ("embed", "0.mlp.up"), ("1.mlp.up", "1.mlp.down")):
        assert (masses[pair].value, masses[pair].harvested) == (None, 0)
        assert full[pair].value > 50
    # The third largest of all, as docs/tutorial.md says.
    assert full["embed", "0.attn.k"].value == pytest.approx(1275.51, rel=1e-4)
    assert sum(pair.value > full["embed", "0.attn.k"].value for pair in full.values()) == 2
    # What leaves components whose causal importances are all zero is zero indeed.
    for pair in (("0.attn.k", "0.attn.o"), ("0.mlp.down", "output"), ("1.mlp.down", "output")):
        assert (masses[pair].value, full[pair].value) == (0, 0)
    for pair, known in masses.items():
        if known.harvested == 1:
            assert known.value == pytest.approx(full[pair].value, rel=1e-5)
        elif known.harvested > 0:
            block, rows = complete.block(*pair).values, demo.harvested.missing(pair[1])
            expected = sum(abs(row).sum(dtype=float) for index, row in enumerate(block) if index not in rows)
            assert known.value == pytest.approx(expected, rel=1e-4)
    missing = {layer: demo.harvested.missing(layer) for layer in demo.layers}
    assert demo.storage.n_components - sum(map(len, missing.values())) == 158
    key = f"0.attn.k:{min(missing['0.attn.k'])}"
    assert demo.edge("embed:her", key).raw is None
    assert complete.edge("embed:her", key).raw != 0
