"""Harvests of small runs through the real Trainer."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from benchmarks.workers import QUIET
from lit_attr.errors import InterruptedHarvestError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.writer import StorageWriter
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.toys import write_run


def harvest(
    harvester: AttributionHarvester,
    tokens: Path,
    out_dir: Path,
    batch_size: int = 2,
    n_batches: Any = "whole_dataset",
    **trainer: Any,
) -> DatasetAttributionStorage:
    """Harvest, and load what was written."""
    writer = StorageWriter(out_dir)
    data = TokenDataModule(tokens, batch_size, n_batches)
    Trainer(**{**QUIET, **trainer}, callbacks=[writer]).predict(harvester, datamodule=data)
    assert writer.path is not None
    return DatasetAttributionStorage.load(writer.path)


def assert_same(found: DatasetAttributionStorage, expected: DatasetAttributionStorage, tolerance: float = 1e-5) -> None:
    """Equal sums, each block relative to its own size, or, where it is rounding noise, to the largest of its kind."""
    assert found.n_tokens_processed == expected.n_tokens_processed
    theirs = dict(expected.named_sums())
    mine = dict(found.named_sums())
    assert list(mine) == list(theirs)
    largest: dict[str, float] = {}
    for name, tensor in theirs.items():
        kind = name.partition("[")[0]
        largest[kind] = max(largest.get(kind, 0.0), float(tensor.abs().max()))
    for name, tensor in theirs.items():
        if not tensor.is_floating_point():
            assert mine[name].equal(tensor), name
            continue
        # A block below a thousandth of its kind's largest entry everywhere: what a norm leaves of its own input.
        noise = float(tensor.abs().max()) < 1e-3 * largest[name.partition("[")[0]]
        scale = largest[name.partition("[")[0]] if noise else float(tensor.norm())
        assert float((mine[name] - tensor).norm()) <= tolerance * max(scale, 1e-30), name


def small_run(folder: Path, seed: int = 0) -> Path:
    """A run of one layer, for tests of many harvests."""
    matrices = [{"module_pattern": f"h.*.mlp.{name}", "C": 3 + i} for i, name in enumerate(("c_fc", "down_proj"))]
    return write_run(folder, seed=seed, model_options={"n_layer": 1}, module_info=matrices)


class Signal(Callback):
    """Sends this process a signal after so many batches."""

    def __init__(self, after: int, number: int = signal.SIGUSR1) -> None:
        self.after, self.number = after, number

    def on_predict_batch_end(self, trainer: Trainer, pl_module: Any, *batch: Any) -> None:
        if batch[2] + 1 == self.after:
            os.kill(os.getpid(), self.number)


def work(
    run: Path, tokens: Path, out_dir: Path, *callbacks: Callback, data: Any = None, model: Any = None, **writer: Any
) -> StorageWriter:
    """One worker, to its end; its callbacks come before the writer."""
    written = StorageWriter(out_dir, **writer)
    trainer = Trainer(**QUIET, callbacks=[*callbacks, written])
    harvester = AttributionHarvester(run, **(model or {}))
    trainer.predict(harvester, datamodule=TokenDataModule(tokens, **{"batch_size": 2, **(data or {})}))
    return written


def stop(after: int, run: Path, tokens: Path, out_dir: Path, number: int = signal.SIGUSR1, **settings: Any) -> Path:
    """One worker, stopped after so many batches; its folder."""
    with pytest.raises(InterruptedHarvestError, match="the same command continues") as stopped:
        work(run, tokens, out_dir, Signal(after, number), **settings)
    return Path(str(stopped.value).partition(" batches in ")[2].partition(";")[0])
