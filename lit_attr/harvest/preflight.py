"""What a harvest is refused for before the weights of its model are loaded."""

from dataclasses import dataclass

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lit_attr.decomposition.model import DecomposedModel
from lit_attr.errors import ShapesUnknownError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.needs import Site, check_fits
from lit_attr.harvest.shape import Shape
from lit_attr.harvest.sources import ModelSource
from lit_attr.harvest.targets import TargetRule
from lit_attr.topology.graph import Topology
from lit_attr.topology.shards import deal
from lit_attr.topology.words import Harvested


@dataclass(frozen=True)
class Preflight:
    """What is checked while nothing is loaded yet.

    Attributes:
        rule: Which components are targets.
        metrics: Which metrics are summed.
        uncertainty: Whether standard errors are harvested.
        trainer: The trainer, its settings checked.
        dtype: Precision of the engine.
    """

    rule: TargetRule
    metrics: Harvested
    uncertainty: bool
    trainer: Trainer
    dtype: torch.dtype

    def check_source(self, source: ModelSource) -> bool:
        """Refuse what does not go with a model, without its weights; errors are those of `check`.

        Args:
            source: Where the model comes from.

        Returns:
            Whether that could be seen: the code of some models, and some rules, need weights.
        """
        try:
            shape = Shape.of(source)
        except ShapesUnknownError as error:
            rank_zero_info(f"lit_attr: whether the harvest fits is seen once the weights are loaded: {error}")
            return False
        self.check(shape.model, shape.topology, source.find_run_id())
        return True

    def check(self, model: DecomposedModel, topology: Topology, run_id: str) -> None:
        """Refuse data that do not belong to a model, and sizes that do not fit.

        Args:
            model: The model, with or without numbers.
            topology: The attribution graph.
            run_id: Id under which results are stored.

        Raises:
            DataError: If the tokens do not belong to the model.
            RunFormatError: If a `harvest.db` is missing, damaged, or another run's.
            ConfigurationError: If more memory is needed than is free, or target shards are too many.
        """
        seq_len, n_shards = None, 1
        if isinstance(data := getattr(self.trainer, "datamodule", None), TokenDataModule):
            data.check(model.vocab_size, model.block_size)
            seq_len, n_shards = data.seq_len, data.target_shards
        bounds = self.rule.bounds(model, topology, run_id)
        squares_dtype = self.dtype if self.uncertainty else None
        deal(bounds[1].layout(topology, self.metrics, squares_dtype), n_shards)  # refuses too many shards
        site = Site.of(self.trainer, self.dtype, n_shards)
        check_fits(model, topology, bounds, self.metrics, squares_dtype, site, seq_len)
