"""What a harvest says of the decomposition before its first batch, and keeps in the provenance."""

import logging

import pytest
import torch
from lightning.pytorch import Trainer

from lit_attr.decomposition.diagnostics import diagnose
from lit_attr.decomposition.untrained import Svd
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from tests.harvest.runs import QUIET, harvest, small_run, stop, work
from tests.huggingface_toys import huggingface_target
from tests.toys import write_tokens


@pytest.fixture(autouse=True)
def everything_logged(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "t.npy", 11)


def said(caplog, *beginnings):
    lines = [line.removeprefix("lit_attr: ") for line in caplog.messages if line.startswith("lit_attr: ")]
    return [line for line in lines if line.startswith(beginnings)]


def test_a_sound_decomposition(tokens, tmp_path, caplog):
    huggingface_target("gpt2", torch.float32).save_pretrained(tmp_path / "gpt2")
    harvester = AttributionHarvester(tmp_path / "gpt2", decomposition=Svd(threshold=0.1))
    stored = harvest(harvester, tokens, tmp_path / "out", batch_size=10)
    known = stored.provenance["diagnostics"]
    assert (known["n_tokens"], known["weight_error"] < 1e-6, known["kl"] < 1e-6) == (8 * 8, True, True)
    (line,) = said(caplog, "mean CI")
    assert line.startswith(f"mean CI of the first 64 tokens {known['mean_ci']:.3g}, {known['dead_share']:.0%} of")
    assert said(caplog, "warning") == []


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_an_unsound_decomposition(tokens, tmp_path, caplog, precision):
    """Weights of a toy are random, and zero causal importances are the result of its biases."""
    run = small_run(tmp_path / "spd-s-toytoy00")
    (checkpoint,) = run.glob("*.pth")
    state = torch.load(checkpoint)
    for name in state:
        if name.startswith("ci_fn"):
            state[name].fill_(-1.0 if name.endswith("layers.2.b") else 0.0)
    torch.save(state, checkpoint)
    harvester = AttributionHarvester(run)
    stored = harvest(harvester, tokens, tmp_path / "out", precision=precision)
    known = stored.provenance["diagnostics"]
    data = TokenDataModule(tokens, 2)
    data.setup("predict")
    rows = data.batch(0)
    assert known == pytest.approx(diagnose(harvester.model, rows).entries())
    assert (known["n_tokens"], known["mean_ci"], known["dead_share"]) == (2 * 8, 0, 1)
    assert not stored.ci_sum["0.mlp.up"].any()
    warnings = said(caplog, "warning: ")
    assert len(warnings) == 2 + (known["kl"] > 0.1)
    assert "every causal importance is zero on the first 16 tokens" in warnings[0]
    assert f"the components of {known['worst_matrix']} do not sum to its matrix" in warnings[1]


def test_without_a_writer(tokens, tmp_path, caplog, recwarn):
    harvester = AttributionHarvester(small_run(tmp_path / "spd-s-toytoy00"))
    Trainer(**QUIET).predict(harvester, datamodule=TokenDataModule(tokens, 4))
    assert len(said(caplog, "mean CI of the first 32 tokens")) == 1


def test_continuing_keeps_what_the_beginning_found(tokens, tmp_path, caplog):
    run = small_run(tmp_path / "spd-s-toytoy00")
    stop(1, run, tokens, tmp_path / "out")
    work(run, tokens, tmp_path / "out")
    first, second = said(caplog, "mean CI of the first 16 tokens")
    assert first == second
