"""Trainer settings: those under which a harvest would be wrong are corrected where that is possible, else refused."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.utilities import rank_zero_info

from lit_attr.errors import ConfigurationError

# Precision of the trainer to the dtype of engine and sums.
_ENGINE_DTYPE = {"32-true": torch.float32, "bf16-mixed": torch.float32, "64-true": torch.float64}
# `auto` chooses others too: mps on a Mac.
_DEVICES = ("cpu", "cuda")


def prepare_trainer(trainer: Trainer) -> torch.dtype:
    """Correct or refuse settings that break gradients or results.

    Args:
        trainer: Before its loop starts.

    Returns:
        The dtype of engine and sums.

    Raises:
        ConfigurationError: If a setting would give wrong or partial results.
    """
    if trainer.precision not in _ENGINE_DTYPE:
        raise ConfigurationError(
            f"trainer.precision {trainer.precision!r} is not supported: attributions lose their meaning in half "
            f"precision; use one of {list(_ENGINE_DTYPE)} (bf16-mixed runs the two forwards alone in bfloat16)"
        )
    limit = trainer.limit_predict_batches
    if isinstance(limit, int) or limit != 1.0:  # for Lightning 1 is one batch, 1.0 is all of them
        raise ConfigurationError(
            f"trainer.limit_predict_batches is {limit} (fast_dev_run sets it too) and would "
            "cut the harvest short unnoticed: use --data.n_batches"
        )
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise ConfigurationError(
            f"trainer.strategy {type(trainer.strategy).__name__} is not supported: use 'auto' or 'ddp', every process "
            "needs the whole model"
        )
    device = trainer.strategy.root_device.type
    if device not in _DEVICES:
        raise ConfigurationError(
            f"trainer.accelerator {device} is not supported: sums that would round too much in float32 are float64 on "
            f"the device, which {' and '.join(_DEVICES)} alone are known to have; use --trainer.accelerator cpu"
        )
    check_launcher(trainer)
    if any(isinstance(callback, Timer) for callback in getattr(trainer, "callbacks", ())):
        raise ConfigurationError("trainer.max_time does not end a harvest: use --data.n_batches")
    loop = trainer.predict_loop
    if loop.inference_mode:
        rank_zero_info("lit_attr: turning inference_mode off, attributions are gradients")
        loop.inference_mode = False
    loop.return_predictions = False  # the result is a file; a list of empty predictions would only grow
    return _ENGINE_DTYPE[trainer.precision]


def check_launcher(trainer: Trainer) -> None:
    """Refuse a trainer whose processes would keep the result to themselves; before they are started.

    Raises:
        ConfigurationError: If it would start them from this one.
    """
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ConfigurationError(
            "trainer.strategy starts processes from this one (spawn, fork), which keep the result to themselves: "
            "use 'ddp'"
        )


def describe_place(device: torch.device, n_processes: int) -> str:
    """Where a process computes, in words.

    Args:
        device: Its device.
        n_processes: Number of the trainer's processes.
    """
    kind = "the CPU" if device.type == "cpu" else str(device)
    if device.type == "cuda":
        kind = f"{torch.cuda.get_device_name(device)} ({device})"
    return kind if n_processes == 1 else f"{kind}, the first of {n_processes} processes"
