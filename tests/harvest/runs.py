"""Harvests of small runs through the real Trainer."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.writer import StorageWriter
from lit_attr.storage.storage import DatasetAttributionStorage

QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


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
