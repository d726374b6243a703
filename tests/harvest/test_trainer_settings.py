from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy

from lit_attr.errors import ConfigurationError
from lit_attr.harvest.trainer_settings import prepare_trainer
from tests.harvest.runs import QUIET


def trainer(**options):
    return Trainer(**{**QUIET, **options})


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), (32, torch.float32), ("bf16-mixed", torch.float32), ("64-true", torch.float64)],
)
def test_engine_dtype(precision, dtype):
    assert prepare_trainer(trainer(precision=precision)) == dtype


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_true_half_precision_is_refused(precision):
    with pytest.raises(ConfigurationError, match=f"trainer.precision '{precision}' is not supported"):
        prepare_trainer(trainer(precision=precision))


@pytest.mark.parametrize(
    "options", [{"limit_predict_batches": 1}, {"limit_predict_batches": 0.5}, {"fast_dev_run": True}]
)
def test_settings_that_cut_the_harvest_short_are_refused(options):
    with pytest.raises(ConfigurationError, match=r"would cut the harvest short unnoticed: use --data.n_batches"):
        prepare_trainer(trainer(**options))


def test_settings_that_do_nothing_or_lose_the_result_are_refused():
    with pytest.raises(ConfigurationError, match=r"trainer\.max_time does not end a harvest"):
        prepare_trainer(trainer(max_time="00:00:00:01"))
    with pytest.raises(ConfigurationError, match=r"keep the result to themselves: use 'ddp'"):
        prepare_trainer(trainer(strategy="ddp_spawn", devices=2))


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_devices_that_are_not_known_to_have_float64_are_refused(device):
    strategy = SingleDeviceStrategy(torch.device(device))
    message = f"trainer.accelerator {device} is not supported: .* float64 on the device, .* --trainer.accelerator cpu"
    with pytest.raises(ConfigurationError, match=message):
        prepare_trainer(trainer(strategy=strategy))


def test_inference_mode_and_returned_predictions_are_corrected():
    harvesting = trainer(inference_mode=True)
    prepare_trainer(harvesting)
    assert not harvesting.predict_loop.inference_mode
    assert not harvesting.predict_loop.return_predictions


def test_sharded_strategies_are_refused(monkeypatch):
    class Sharded:
        precision_plugin = SimpleNamespace(precision="32-true")
        launcher = None

    harvesting = trainer()
    monkeypatch.setattr(type(harvesting), "strategy", Sharded())
    with pytest.raises(ConfigurationError, match=r"trainer.strategy Sharded is not supported"):
        prepare_trainer(harvesting)
