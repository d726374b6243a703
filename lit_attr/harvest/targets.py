"""Which components are the targets of a harvest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_attr.data.token_file import TokenBatch, check_batch
from lit_attr.decomposition.harvest_db import alive_in_harvest, file_digest
from lit_attr.decomposition.load import Run
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.needs import Live
from lit_attr.topology.address import EMBED
from lit_attr.topology.graph import Topology

Alive = dict[str, Bool[Tensor, " component"]]
# Tokens of one forward that looks for targets: not what the machine has memory for, which would decide about means that
# round differently. Logits over a vocabulary of 128,000 take 1 GB.
_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class TargetRule:
    """All components are targets, or those that fired in another harvest, or those with causal importance.

    Attributes:
        harvest_db: The `harvest.db` whose components with a firing density above zero are targets.
        alive_batches: Number of batches of the data, from the first, whose mean causal importance decides.
        ci_threshold: What that mean must exceed; 0 where no batches decide.

    Raises:
        ConfigurationError: If the settings contradict each other.
    """

    harvest_db: Path | None
    alive_batches: int | None
    ci_threshold: float

    def __post_init__(self) -> None:
        if self.harvest_db is not None and self.alive_batches is not None:
            raise ConfigurationError(
                "model.harvest_db and model.alive_batches both say which components are alive: drop one"
            )
        if self.alive_batches is not None and self.alive_batches < 1:
            raise ConfigurationError(f"model.alive_batches must be at least 1, found {self.alive_batches}")
        if not 0 <= self.ci_threshold <= 1:
            raise ConfigurationError(
                f"model.ci_threshold is a mean causal importance, from 0 to 1, found {self.ci_threshold}"
            )
        if self.ci_threshold and self.alive_batches is None:
            raise ConfigurationError(
                f"model.ci_threshold {self.ci_threshold} does nothing without model.alive_batches, the number of "
                "batches over which causal importances are averaged: set that too, or drop it"
            )

    def __str__(self) -> str:
        """The setting that decides, for messages."""
        if self.harvest_db is not None:
            return f"model.harvest_db is {self.harvest_db}"
        return f"model.alive_batches is {self.alive_batches}, ci_threshold {self.ci_threshold}"

    def entries(self) -> dict[str, Any]:
        """The rule in plain types, the database by its digest."""
        return {
            "harvest_db": None if self.harvest_db is None else file_digest(self.harvest_db),
            "alive_batches": self.alive_batches,
            "ci_threshold": self.ci_threshold,
        }

    def record(self, data: TokenDataModule) -> dict[str, Any]:
        """What a result records: the rule, and over how much of the data it was followed."""
        if self.harvest_db is not None:
            return {"rule": "harvest_db", "harvest_db": file_digest(self.harvest_db)}
        if self.alive_batches is None:
            return {"rule": "all"}
        asked, used = self.alive_batches, min(self.alive_batches, data.n_batches_at_hand)
        return {"rule": "mean_ci", "ci_threshold": self.ci_threshold, "alive_batches": asked, "n_batches": used}

    def prepare_data(self, data: object) -> None:
        """Have the batches tokenized that decide; on one process of each machine.

        Raises:
            ConfigurationError: If batches decide and the data is no `TokenDataModule`.
        """
        if self.alive_batches is not None:
            _with_ids(data).prepare_batches(self.alive_batches)

    def known(self, model: DecomposedModel, run_id: str) -> Alive | None:
        """The targets, if no data decides; a model without numbers will do. Arguments and errors as for `find`.

        Args:
            model: The decomposed model.
            run_id: Id under which results are stored.
        """
        if self.harvest_db is not None:
            return alive_in_harvest(self.harvest_db, model.paths, model.n_components, run_id)
        if self.alive_batches is None:
            return {layer: torch.ones(count, dtype=torch.bool) for layer, count in model.n_components.items()}
        return None

    def bounds(self, model: DecomposedModel, topology: Topology, run_id: str) -> tuple[Live, Live]:
        """The fewest and the most that may have a place in tables; arguments and errors as for `known`."""
        least, most = Live.fewest(topology), Live.all(topology)
        if (known := self.known(model, run_id)) is None:
            return least, most
        targets = {layer: int(alive.sum()) for layer, alive in known.items()}
        sources = least.sources if self.harvest_db is None else {**targets, EMBED: 1}
        return Live(sources, targets), Live(most.sources, targets)

    def find(self, run: Run, data: object, device: torch.device) -> Alive:
        """Find the targets.

        Args:
            run: The run, its model on `device`.
            data: The data of the harvest; only `alive_batches` reads it.
            device: The device that computes causal importances.

        Returns:
            Decomposed layer to a mask of its components, on the CPU.

        Raises:
            ConfigurationError: If batches decide and the data is no `TokenDataModule`.
            RunFormatError: If the `harvest.db` is missing, damaged, or another run's.
        """
        known = self.known(run.model, run.run_id)
        return self._find_by_mean(run.model, _with_ids(data), device) if known is None else known

    def _find_by_mean(self, model: DecomposedModel, data: TokenDataModule, device: torch.device) -> Alive:
        """The components whose mean causal importance over the first batches of the data exceeds the threshold."""
        asked = self.alive_batches or 0
        n_batches = min(asked, data.n_batches_at_hand)
        if asked > n_batches:
            rank_zero_info(
                f"lit_attr: warning: model.alive_batches is {asked}, but the data has {n_batches} batches: targets are "
                "found over all of them"
            )
        sums = {layer: torch.zeros(count, dtype=torch.float64) for layer, count in model.n_components.items()}
        n_tokens = 0
        for batch_id in range(n_batches):
            batch = TokenBatch(batch_id, data.batch(batch_id))
            check_batch(batch, model.vocab_size, model.block_size)
            n_rows = max(1, _TOKENS_AT_ONCE // data.seq_len)
            for first_row in range(0, len(batch.tokens), n_rows):
                tokens = batch.tokens[first_row : first_row + n_rows].to(device)
                for layer, ci in model.causal_importance(tokens, batch_id, first_row).items():
                    sums[layer] += ci.sum((0, 1), dtype=torch.float64).cpu()
            n_tokens += batch.tokens.numel()
        return {layer: total / n_tokens > self.ci_threshold for layer, total in sums.items()}


def _with_ids(data: object) -> TokenDataModule:
    if not isinstance(data, TokenDataModule):
        raise ConfigurationError("model.alive_batches needs a TokenDataModule, whose batches have ids")
    return data
