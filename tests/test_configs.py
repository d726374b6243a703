from pathlib import Path

import pytest
import yaml

from lit_attr.cli.predict import build_cli
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from tests.toys import write_run, write_tokens

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_config_is_parsed_and_instantiated(path, tmp_path):
    run, tokens = write_run(tmp_path / "run"), write_tokens(tmp_path / "t.npy", 2)
    cli = build_cli(["--config", str(path), "--model.run", str(run), "--data.tokens", str(tokens)], run=False)
    assert isinstance(cli.model, AttributionHarvester)
    assert isinstance(cli.datamodule, TokenDataModule)
    given = yaml.safe_load(path.read_text())
    for section, found in (("model", cli.model.hparams), ("data", cli.datamodule.hparams)):
        for key, value in given[section].items():
            if key in ("run", "tokens"):  # given on the command line here
                continue
            assert found[key] == value, (section, key)
    assert cli.trainer.predict_loop.inference_mode is False


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_key_has_a_comment(path):
    for line in path.read_text().splitlines():
        if line.startswith("  "):
            assert "#" in line, line
    given = yaml.safe_load(path.read_text())
    assert list(given) == ["model", "data", "writer", "trainer"]
