"""The harvest: batches of tokens in, sums of attributions out."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_attr.attribution.batch import add_batch_
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine import Engine
from lit_attr.attribution.engine_choice import EngineName, build_engine, choose_engines
from lit_attr.data.token_file import TokenBatch, check_batch
from lit_attr.decomposition.harvest_db import alive_in_harvest, file_digest
from lit_attr.decomposition.load import Run
from lit_attr.decomposition.untrained import Decomposition
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.memory import check_sums_fit, keep_freed_memory, memory_limit, rows_that_fit
from lit_attr.harvest.model_source import ModelSource
from lit_attr.harvest.processes import on_first_process
from lit_attr.harvest.trainer_settings import prepare_trainer
from lit_attr.topology.paths import PathTable
from lit_attr.topology.sums import Sums

Alive = dict[str, Bool[Tensor, " component"]]


class AttributionHarvester(LightningModule):
    """Harvests dataset attributions of a decomposition run in `Trainer.predict`.

    For every batch: a forward of the target model gives causal importances, a forward with all components on gives
    activations and their graph, an attribution engine turns these into sums, in place.

    Args:
        run: A run directory, a checkpoint file, a wandb reference, or `demo`; see `load_run`. With `decomposition`, a
            language model: a local folder, or its name on the Hugging Face hub.
        engine: How attributions are computed. `closed_form`: by matrix products. `autograd`: one gradient for each
            target component and metric. `auto`: the first wherever it is exact, forward mode elsewhere.
        targets_per_pass: Gradients that one backward pass of `autograd` takes, and sources that one pass in forward
            mode takes; memory grows with it.
        workspace_mb: Memory for the temporaries of the closed forms, in 2^20 bytes; at most half of `memory_gb`.
        harvest_db: The `harvest.db` of a goodfire-ai/spd harvest of the run; only components that fired in it are
            targets. Without it, and without `alive_batches`, all components are.
        alive_batches: Only components whose mean causal importance over the first so many batches of the data exceeds
            `ci_threshold` are targets; how many of them are harvested makes no difference, so that a harvest of few
            batches can be extended.
        ci_threshold: See `alive_batches`; recorded in the result.
        memory_gb: Memory for one batch's forwards, captured activations and workspace, in 10^9 bytes; batches that need
            more are split by rows. None for 70 % of what is free.
        decomposition: How to decompose a language model without training: `Svd`, `Neurons`, or a class of your own by
            its dotted path. None for a run that was trained.
        path_table: Where the model keeps its matrices; None for the package's own table of its class.

    Raises:
        ConfigurationError: If the settings contradict each other.
    """

    def __init__(
        self,
        run: str | Path,
        engine: EngineName = "auto",
        targets_per_pass: int = 16,
        workspace_mb: int = 1024,
        harvest_db: str | Path | None = None,
        alive_batches: int | None = None,
        ci_threshold: float = 0.0,
        memory_gb: float | None = None,
        decomposition: Decomposition | None = None,
        path_table: PathTable | None = None,
    ) -> None:
        super().__init__()
        if targets_per_pass < 1:
            raise ConfigurationError(f"model.targets_per_pass must be at least 1, found {targets_per_pass}")
        if workspace_mb < 1:
            raise ConfigurationError(f"model.workspace_mb must be at least 1, found {workspace_mb}")
        if harvest_db is not None and alive_batches is not None:
            raise ConfigurationError(
                "model.harvest_db and model.alive_batches both say which components are alive: drop one"
            )
        if alive_batches is not None and alive_batches < 1:
            raise ConfigurationError(f"model.alive_batches must be at least 1, found {alive_batches}")
        if harvest_db is not None and decomposition is not None:
            raise ConfigurationError("model.harvest_db is of a trained run: drop it, or model.decomposition")
        self.save_hyperparameters()
        # Not taken from hparams: there Lightning's command line keeps plain dictionaries.
        self.source = ModelSource(run, decomposition, path_table)
        self.sums = AttributionSums()
        self.alive: Alive | None = None
        self.run: Run | None = None
        self._engine: Engine | None = None
        self._rows_at_once: int | None = None

    @classmethod
    def from_run(cls, run: Run, **options: Any) -> "AttributionHarvester":  # noqa: ANN401 - those of __init__
        """A harvester of a run that is loaded already.

        Args:
            run: The loaded run.
            options: As for the constructor, `run` aside.
        """
        harvester = cls(run.reference, **options)
        harvester.run = run
        return harvester

    def load_run(self) -> Run:
        """The run, loaded when it is first asked for.

        Not a property: torch takes an AttributeError in a module's property for a missing attribute.
        """
        if self.run is None:
            self.run = self.source.load()
        return self.run

    def prepare_data(self) -> None:
        """Download the run where no cache holds it: one process of each machine does, the others wait."""
        if self.run is None:  # models of the hub are left to its own library, which lets one process download
            self.source.find_run_id()
        if self.hparams["alive_batches"] is not None:
            self._data().prepare_batches(self.hparams["alive_batches"])

    def setup(self, stage: str = "predict") -> None:
        """Load the run, find its attribution graph, and allocate the sums; on every process.

        Args:
            stage: As Lightning names it.

        Raises:
            ConfigurationError: If trainer settings would give wrong results, or the sums do not fit.
        """
        dtype = prepare_trainer(self.trainer)
        keep_freed_memory()
        self.alive = None
        # Registered here, so that Lightning moves it to the device with the module.
        self.model = self.load_run().model
        self.topology = trace_topology(self.model)
        self.choice = choose_engines(self.hparams["engine"], self.model, self.topology)
        device = self.trainer.strategy.root_device
        check_sums_fit(self.topology, dtype, device, self.trainer.num_devices)
        self.sums.allocate(self.topology, dtype, device)
        counts = self.topology.n_components
        rank_zero_info(
            f"lit_attr: harvesting {self.load_run().run_id}: {sum(counts.values())} components in {len(counts)} "
            f"matrices; sums take {self.sums.recent.nbytes / 1e9:.3g} GB on the device and "
            f"{self.sums.totals.nbytes / 1e9:.3g} GB on the host"
        )
        rank_zero_info(f"lit_attr: {self.choice.describe()}")

    def on_predict_start(self) -> None:
        """Find out which components are targets, unless a harvest that is continued has said so, and choose engines.

        Raises:
            ConfigurationError: If none is.
        """
        self._rows_at_once = None
        if self.alive is None:
            # Means near the threshold may round differently on different devices: one process decides for all.
            self.alive = on_first_process(self.trainer, self.find_alive)
        alive = torch.cat(list(self.alive.values()))
        n_alive, n_all = int(alive.sum()), len(alive)
        if n_alive == 0:
            raise ConfigurationError(
                f"none of {n_all} components is alive, so that there are no targets: {self._gate()}"
            )
        rank_zero_info(f"lit_attr: {n_alive} of {n_all} components are targets")
        self._memory_limit = memory_limit(
            self.hparams["memory_gb"], self.device, 1 if self.device.type == "cuda" else self.trainer.num_devices
        )
        self._engine = build_engine(
            self.choice,
            self.model,
            self.topology,
            self.alive,
            self.hparams["targets_per_pass"],
            min(self.hparams["workspace_mb"] << 20, int(self._memory_limit / 2)),
        )

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> dict[str, Tensor]:
        """Add one batch to the sums.

        Args:
            batch: Token ids; empty where this process has no more batches than the others have steps.
            batch_idx: Step of this process.

        Returns:
            Nothing, as a dictionary: Lightning warns of None.

        Raises:
            DataError: If the tokens do not belong to the model.
        """
        batch_id, tokens = batch
        if len(tokens):
            check_batch(batch, self.model.vocab_size, self.model.block_size)
            if self._rows_at_once is None:
                self._rows_at_once = self._measure_rows(batch)
            for first_row in range(0, len(tokens), self._rows_at_once):
                rows = tokens[first_row : first_row + self._rows_at_once]
                self.sums.update(partial(self._contribute, self.engine, rows, batch_id, first_row))
        return {}

    @property
    def engine(self) -> Engine:
        """The attribution engine; after `on_predict_start`."""
        if self._engine is None:
            raise ConfigurationError("the harvest has not started: there is no engine yet")
        return self._engine

    def _contribute(
        self, engine: Engine, tokens: Int[Tensor, "rows seq"], batch_id: int, first_row: int, sums: Sums
    ) -> None:
        add_batch_(sums, self.model, self.topology, engine, tokens, batch_id, first_row)

    def _measure_rows(self, batch: TokenBatch) -> int:
        """How many rows of a batch to take at once; a trial of a few rows, whose sums are dropped."""
        truncated = self.engine.truncated()
        limit = self._memory_limit - self.engine.reserved_bytes

        def trial(rows: Int[Tensor, "rows seq"]) -> None:
            with torch.enable_grad():
                self._contribute(truncated, rows, batch.batch_id, 0, self.sums.recent)

        rows = rows_that_fit(trial, batch.tokens, limit)
        self.sums.recent.zero_()
        if rows < len(batch.tokens):
            rank_zero_info(
                f"lit_attr: taking {rows} of {len(batch.tokens)} rows at once, to stay within {limit / 1e9:.3g} GB"
            )
        return rows

    def _gate(self) -> str:
        """The setting that decides which components are alive."""
        if self.hparams["harvest_db"] is not None:
            return f"model.harvest_db is {self.hparams['harvest_db']}"
        return f"model.alive_batches is {self.hparams['alive_batches']}, ci_threshold {self.hparams['ci_threshold']}"

    def target_settings(self) -> dict[str, Any]:
        """What decides which components are targets, in plain types."""
        harvest_db = self.hparams["harvest_db"]
        return {
            "harvest_db": None if harvest_db is None else file_digest(Path(harvest_db)),
            "alive_batches": self.hparams["alive_batches"],
            "ci_threshold": self.hparams["ci_threshold"],
            "decomposition": self.load_run().decomposition,
            "path_table": self.source.table_entries(),
        }

    def find_alive(self) -> Alive:
        """Find the components that are targets; after `setup`.

        Raises:
            ConfigurationError: If the settings do not fit the data.
            RunFormatError: If the `harvest.db` is missing, damaged, or of another run.
        """
        counts = self.topology.n_components
        if self.hparams["harvest_db"] is not None:
            path = Path(self.hparams["harvest_db"])
            return alive_in_harvest(path, self.model.paths, counts, self.load_run().run_id)
        if self.hparams["alive_batches"] is None:
            return {layer: torch.ones(count, dtype=torch.bool) for layer, count in counts.items()}
        return self._alive_by_mean()

    def _data(self) -> TokenDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, TokenDataModule):
            raise ConfigurationError("model.alive_batches needs a TokenDataModule, whose batches have ids")
        return data

    def _alive_by_mean(self) -> Alive:
        """The components whose mean causal importance over the first batches of the data exceeds the threshold."""
        data, asked = self._data(), self.hparams["alive_batches"]
        n_batches = min(asked, data.n_batches_at_hand)
        if asked > n_batches:
            rank_zero_info(
                f"lit_attr: warning: model.alive_batches is {asked}, but the data has {n_batches} batches: targets are "
                "found over all of them"
            )
        sums = {layer: torch.zeros(count, dtype=torch.float64) for layer, count in self.topology.n_components.items()}
        n_tokens = 0
        for batch_id in range(n_batches):
            batch = TokenBatch(batch_id, data.batch(batch_id))
            check_batch(batch, self.model.vocab_size, self.model.block_size)
            for row, tokens in enumerate(batch.tokens.to(self.device).split(1)):
                for layer, ci in self.model.causal_importance(tokens, batch_id, row).items():
                    sums[layer] += ci.sum((0, 1), dtype=torch.float64).cpu()
            n_tokens += batch.tokens.numel()
        return {layer: total / n_tokens > self.hparams["ci_threshold"] for layer, total in sums.items()}
