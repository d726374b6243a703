"""Dataset attributions of decomposed language models: which components influence which, over a whole training set."""

from importlib import import_module
from typing import TYPE_CHECKING

from lit_attr._version import __version__

if TYPE_CHECKING:
    from lit_attr.decomposition.load import load_run
    from lit_attr.decomposition.untrained import Decomposition, Neurons, Svd
    from lit_attr.harvest.accumulator import AttributionSums
    from lit_attr.harvest.datamodule import TokenDataModule
    from lit_attr.harvest.harvester import AttributionHarvester
    from lit_attr.harvest.writer import StorageWriter
    from lit_attr.query.attribution_repo import AttributionRepo
    from lit_attr.query.explorer import Explorer
    from lit_attr.storage.dataset_attributions import DatasetAttributionStorage

__all__ = [
    "AttributionHarvester",
    "AttributionRepo",
    "AttributionSums",
    "DatasetAttributionStorage",
    "Decomposition",
    "Explorer",
    "Neurons",
    "StorageWriter",
    "Svd",
    "TokenDataModule",
    "__version__",
    "load_run",
]

# Loaded on first use, so that reading a stored result does not import Lightning.
_HOMES = {
    "AttributionHarvester": "lit_attr.harvest.harvester",
    "AttributionRepo": "lit_attr.query.attribution_repo",
    "AttributionSums": "lit_attr.harvest.accumulator",
    "DatasetAttributionStorage": "lit_attr.storage.dataset_attributions",
    "Decomposition": "lit_attr.decomposition.untrained",
    "Explorer": "lit_attr.query.explorer",
    "Neurons": "lit_attr.decomposition.untrained",
    "StorageWriter": "lit_attr.harvest.writer",
    "Svd": "lit_attr.decomposition.untrained",
    "TokenDataModule": "lit_attr.harvest.datamodule",
    "load_run": "lit_attr.decomposition.load",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
