"""The module and the data that a `StorageWriter` works with, as its trainer has them."""

from lightning.pytorch import LightningModule, Trainer

from lit_attr.errors import ConfigurationError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester


def harvester_of(pl_module: LightningModule) -> AttributionHarvester:
    """A trainer's module.

    Raises:
        ConfigurationError: If it is no harvester.
    """
    if not isinstance(pl_module, AttributionHarvester):
        raise ConfigurationError(
            f"StorageWriter writes an AttributionHarvester's sums, found {type(pl_module).__name__}"
        )
    return pl_module


def data_of(trainer: Trainer) -> TokenDataModule:
    """A trainer's data.

    Raises:
        ConfigurationError: If its batches have no ids.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, TokenDataModule):
        raise ConfigurationError(f"StorageWriter needs a TokenDataModule, whose batches have ids; found {data!r}")
    return data
