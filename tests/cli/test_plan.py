"""`lit-attr plan` as people call it."""

import json
import re
from pathlib import Path

import pytest

from lit_attr.cli import planned
from lit_attr.cli.main import main
from tests.huggingface_toys import huggingface_target
from tests.planning.examples import SPEED
from tests.toys import write_run, write_tokens

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(planned, "measured_speed", lambda: SPEED)


@pytest.mark.slow
def test_the_demo(quick, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    arguments = ["plan", "--config", "configs/demo.yaml", "--host_gb", "8", "--alive_share", "0.5"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "384 in 12 matrices of GPT2Simple, 16 to 40 in each" in text
    assert "192 sources, 192 targets, 69 tokens: --alive_share 0.5" in text  # alive_batches: targets are what lives
    assert "32,768 tokens" in text or "3.28e+04 tokens" in text
    assert "1 x 1 workers, --data.target_shards 1" in text
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert sum(plan["n_components"].values()) == 384
    assert plan["proposal"] == plan["grids"][0]


@pytest.mark.slow
def test_a_run_that_is_not_at_hand(quick, tmp_path, capsys):
    """A folder without a checkpoint, and a language model without weights."""
    run = write_run(tmp_path / "run")
    (run / "model_10.pth").unlink()
    tokens = ["--data.tokens", str(write_tokens(tmp_path / "t.npy", 6)), "--json"]
    assert main(["plan", "--model.run", str(run), *tokens]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["load"]["seq_len"], plan["load"]["n_tokens"]) == (8, 48)
    huggingface_target("gpt2").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    model = ["--model.run", str(tmp_path / "model"), "--components", "100", "--seq_len", "16", "--json"]
    found = []
    for weights in ("float32", "bfloat16"):
        assert main(["plan", *model, "--weights", weights]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert set(found[0]["n_components"].values()) == {100}
    wide, narrow = (plan["worker"]["weights"]["components"] for plan in found)
    assert narrow < 0.6 * wide, "matrices are kept in half, vectors are not"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model.run is missing"),
        (["--model.run", "demo", "--n_tokens", "0"], "--n_tokens must be positive, found 0"),
        (["--model.run", "demo", "--seq_len", "8", "--device", "H9"], "unknown device 'H9': known are A100"),
        (["--model.run", "demo", "--model.metrics", "all"], "the configuration is not understood: .*metrics"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert main(["plan", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
