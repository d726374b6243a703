"""The harvest: batches of tokens in, sums of attributions out."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_attr.attribution.batch import add_batch_, read_vectors
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine import Engine
from lit_attr.attribution.engine_choice import EngineChoice, EngineName, build_engine, choose_engines
from lit_attr.data.batch_ids import is_in_share
from lit_attr.data.token_file import TokenBatch, check_batch
from lit_attr.decomposition.diagnostics import Diagnostics, diagnose
from lit_attr.decomposition.load import Run
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.untrained import Decomposition
from lit_attr.errors import ConfigurationError
from lit_attr.files.roots import user_path
from lit_attr.harvest.accumulator import AttributionSums, updates_per_group
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.memory import keep_freed_memory, memory_limit, rows_that_fit
from lit_attr.harvest.postponed import Postponed
from lit_attr.harvest.preflight import Preflight
from lit_attr.harvest.processes import Processes, group_of_shard
from lit_attr.harvest.sources import ModelSource
from lit_attr.harvest.stopping import StopRule
from lit_attr.harvest.targets import Alive, TargetRule
from lit_attr.harvest.trainer_settings import describe_place, prepare_trainer
from lit_attr.topology.graph import Topology
from lit_attr.topology.layout import Layout
from lit_attr.topology.paths import PathTable
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.shards import deal
from lit_attr.topology.squares import N_BLOCKS
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import HARVESTED, Harvested, StopWhen

_Value = TypeVar("_Value")
# A batch whose `attr_abs` is taken, whatever the share.
_WITH_ABS = 0
# Sequences of the first batch on which the decomposition is diagnosed: two forwards each.
_DIAGNOSED_ROWS = 8


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
        ci_threshold: Mean causal importance for `alive_batches`, from 0 to 1; recorded in the result. Anything but 0 is
            refused without `alive_batches`, where it would do nothing.
        memory_gb: Memory for one batch's forwards, captured activations and workspace, in 10^9 bytes; batches that need
            more are split by rows. None for 70 % of what is free.
        decomposition: How to decompose a language model without training: `Svd`, `Neurons`, or a class of your own by
            its dotted path. None for a run that was trained.
        path_table: Where the model keeps its matrices; None for the package's own table of its class.
        metrics: What is attributed: `both` metrics, or `attr` alone, which costs about as much as the forwards, and
            memory only for each source and input, not for each pair of components.
        abs_share: Share of the sequences from which `attr_abs` is taken, batch by batch; its sums are scaled to all of
            them, and every answer says so. Without it, the cost is nearly that of `attr` alone.
        uncertainty: Whether standard errors are harvested, too: how far every value would move on other data. They take
            memory as large as a float32 copy of the sums, and that of the sums of one group of batches.
        stop_when: `settled` ends the harvest before `n_batches` once more data would change little, see
            `lit_attr.harvest.stopping`. None for all batches.
        stop_error: Relative error below which it is settled; None for 0.05.

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
        metrics: Harvested = "both",
        abs_share: float = 1.0,
        uncertainty: bool = True,  # noqa: FBT001, FBT002 - YAML names it
        stop_when: StopWhen | None = None,
        stop_error: float | None = None,
    ) -> None:
        super().__init__()
        if metrics not in HARVESTED:
            raise ConfigurationError(f"model.metrics must be one of {list(HARVESTED)}, found {metrics!r}")
        if not 0 < abs_share <= 1:
            raise ConfigurationError(f"model.abs_share must be above 0 and at most 1, found {abs_share}")
        if abs_share < 1 and metrics == "attr":
            raise ConfigurationError(f"model.abs_share {abs_share} does nothing with metrics attr: drop one of them")
        for name, number in (("targets_per_pass", targets_per_pass), ("workspace_mb", workspace_mb)):
            if number < 1:
                raise ConfigurationError(f"model.{name} must be at least 1, found {number}")
        if memory_gb is not None and not memory_gb > 0:
            raise ConfigurationError(f"model.memory_gb must be positive, found {memory_gb}")
        if harvest_db is not None and decomposition is not None:
            raise ConfigurationError("model.harvest_db is of a trained run: drop it, or model.decomposition")
        self.save_hyperparameters()
        self.engine_name = engine
        self.metrics = metrics
        self.abs_share = abs_share
        self.uncertainty = uncertainty
        self.stop_rule = StopRule.of(stop_when, stop_error, uncertainty=uncertainty)
        self.targets_per_pass = targets_per_pass
        self.workspace_bytes = workspace_mb << 20
        self.memory_gb = memory_gb
        database = None if harvest_db is None else user_path(harvest_db)
        self.target_rule = TargetRule(database, alive_batches, ci_threshold)
        # Not taken from hparams: there Lightning's command line keeps plain dictionaries.
        self.source = ModelSource(run, decomposition, path_table)
        self.sums = AttributionSums()
        self._postponed = Postponed()
        # Known once the run is loaded.
        self._run: Run | None = None
        self._topology: Topology | None = None
        self._choice: EngineChoice | None = None
        # Known once the trainer has started.
        self._sums_dtype = torch.float32
        self._alive: Alive | None = None
        self._engine: Engine | None = None
        self._memory_limit = 0.0
        self._n_sharing = 1  # processes, the batches
        # Known once the first batch is there.
        self._rows_at_once: int | None = None

    @classmethod
    def from_run(cls, run: Run, **options: Any) -> "AttributionHarvester":  # noqa: ANN401 - those of __init__
        """A harvester of a run that is loaded already.

        Args:
            run: The loaded run.
            options: Arguments of the constructor other than `run`.
        """
        harvester = cls(run.reference, **options)
        harvester._run = run
        return harvester

    def load_run(self) -> Run:
        """The run, loaded when it is first asked for.

        Not a property: torch takes an AttributeError in a module's property for a missing attribute.
        """
        if self._run is None:
            self._run = self.source.load()
        return self._run

    @property
    def model(self) -> DecomposedModel:
        """The decomposed model."""
        return self.load_run().model

    @property
    def topology(self) -> Topology:
        """The attribution graph; after `check`."""
        return started(self._topology)

    @property
    def choice(self) -> EngineChoice:
        """Which engine computes which edge block; after `check`."""
        return started(self._choice)

    @property
    def engine(self) -> Engine:
        """The attribution engine; after `on_predict_start`."""
        return started(self._engine)

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, without the entries that Lightning's command line adds for itself."""
        return {key: value for key, value in self.hparams.items() if not key.startswith("_")}

    def target_settings(self) -> dict[str, Any]:
        """What decides which components are targets, in plain types."""
        return {
            **self.target_rule.entries(),
            "decomposition": self.load_run().decomposition,
            "path_table": self.source.table_entries(),
        }

    def prepare_data(self) -> None:
        """Download the run where no cache holds it: one process of each machine does, the others wait."""
        with self._postponed.with_others(self.trainer):
            if self._run is None:  # models of the hub are left to its own library, which lets one process download
                self.source.find_run_id()
            self.target_rule.prepare_data(self._data())

    def check(self) -> torch.dtype:
        """Load the run, and refuse what cannot be harvested while nothing is written yet; on every process.

        The `StorageWriter`, whose setup comes before the module's, asks for it first; `setup` asks again.

        Returns:
            The dtype of engine and sums.

        Raises:
            ConfigurationError: If trainer settings would give wrong results, the engine is not exact for this model, or
                the sums do not fit.
            DataError: If the tokens do not belong to the model.
        """
        self._postponed.raise_mistake()
        dtype = prepare_trainer(self.trainer)
        preflight = Preflight(self.target_rule, self.metrics, self.uncertainty, self.trainer, dtype)
        is_checked = self._run is None and preflight.check_source(self.source)
        run = self.load_run()
        if self._topology is None or self._choice is None:
            self._topology = trace_topology(run.model)
            self._choice = choose_engines(self.engine_name, run.model, self._topology)
            if not is_checked:
                preflight.check(run.model, self._topology, run.run_id)
        return dtype

    def setup(self, stage: str = "predict") -> None:
        """Let Lightning know the model; on every process.

        Args:
            stage: As Lightning names it.

        Raises:
            LitAttrError: If `check` refuses something.
        """
        self._sums_dtype = self.check()
        keep_freed_memory()
        self._alive = None
        self.add_module("decomposed", self.model)  # so that Lightning moves it to the device
        device = self.trainer.strategy.root_device
        place, counts = describe_place(device, self.trainer.world_size), self.topology.n_components
        what = f"{self.load_run().run_id} on {place}: {sum(counts.values())} components in {len(counts)} matrices"
        rank_zero_info(f"lit_attr: harvesting {what}")
        rank_zero_info(f"lit_attr: {self.choice.describe()}")

    def find_alive(self) -> Alive:
        """Find the components that are targets; after `setup`. Errors are those of `TargetRule.find`."""
        return self.target_rule.find(self.load_run(), self._data(), self.device)

    def diagnose(self, data: TokenDataModule) -> Diagnostics:
        """Measure how well the decomposition stands for the model, and say so; after `setup`, on one process.

        Args:
            data: The data of the harvest, whose first sequences are looked at.
        """
        tokens = data.batch(0)[:_DIAGNOSED_ROWS].to(self.device)
        diagnostics = diagnose(self.model, tokens)
        rank_zero_info(f"lit_attr: {diagnostics}")
        for problem in diagnostics.warnings():
            rank_zero_info(f"lit_attr: warning: {problem}")
        return diagnostics

    def read_vectors(self, alive: Mapping[str, Bool[Tensor, " _component"]]) -> ReadVectors:
        """What turns the sums of `attr` into those of single targets; after `check`.

        Args:
            alive: Decomposed layer to a mask of the components that are targets.
        """
        return read_vectors(self.model, self.topology, alive)

    def set_targets(self, alive: Mapping[str, Bool[Tensor, " _component"]]) -> None:
        """Take over the targets of a harvest that is continued or shared, and allocate the sums; after `setup`.

        Args:
            alive: Decomposed layer to a mask of its components.
        """
        self._alive = dict(alive)
        squares_dtype = self._sums_dtype if self.uncertainty else None
        layout, first_block = Layout.of(self.topology, alive, self.metrics, squares_dtype), 0
        if isinstance(data := self._data(), TokenDataModule):
            layout = deal(layout, data.target_shards)[data.shard]
            self.sums.process_group = group_of_shard(data.shard, len(data.shards))
            if self.uncertainty:
                self.sums.updates_per_flush = updates_per_group(data.n_batches if self.stop_rule is None else 0)
                rank, self._n_sharing = data.worker()
                first_block = N_BLOCKS * rank // self._n_sharing
        of_targets = {}
        if layout.squares:
            read = self.read_vectors(alive)
            of_targets = {layer: read.of_targets(layer) for layer in layout.squares}
        self.sums.allocate(layout, self._sums_dtype, self.trainer.strategy.root_device, of_targets, first_block)

    def on_predict_start(self) -> None:
        """Find out which components are targets, unless a `StorageWriter` has said so, and build the engine.

        Raises:
            ConfigurationError: If no component is a target.
        """
        self._rows_at_once = None
        if self._alive is None:
            if self.stop_rule is not None:
                raise ConfigurationError("model.stop_when needs a StorageWriter: looks are at what is committed")
            rank_zero_warn(
                "lit_attr: no StorageWriter among the trainer's callbacks: nothing is stored, the sums stay in "
                "`harvester.sums`. To store a result: Trainer(callbacks=[StorageWriter()])"
            )
            # Means near the threshold may round differently on different devices: one process decides for all.
            processes = Processes.of(self.trainer)
            self.set_targets(processes.on_first(self.find_alive))
            if isinstance(data := self._data(), TokenDataModule):
                processes.on_first(partial(self.diagnose, data))
        alive = torch.cat(list(started(self._alive).values()))
        n_alive, n_all = int(alive.sum()), len(alive)
        if n_alive == 0:
            raise ConfigurationError(f"none of {n_all} components is alive, so none is a target: {self.target_rule}")
        rank_zero_info(f"lit_attr: {n_alive} of {n_all} components are targets")
        self._memory_limit = memory_limit(
            self.memory_gb, self.device, 1 if self.device.type == "cuda" else self.trainer.num_devices
        )
        self._engine = build_engine(
            self.choice,
            self.model,
            self.sums.totals.layout,
            self.targets_per_pass,
            min(self.workspace_bytes, int(self._memory_limit / 2)),
        )

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> dict[str, Tensor]:
        """Add one batch to the sums.

        Args:
            batch: Token ids; empty where this process has no more batches than the others have steps.
            batch_idx: Step of this process.

        Returns:
            An empty dictionary: Lightning warns of None.

        Raises:
            DataError: If the tokens do not belong to the model.
        """
        batch_id, tokens = batch
        if self.stop_rule is not None:  # which may look at the sums after few batches: groups grow with what is done
            self.sums.updates_per_flush = updates_per_group(batch_idx * self._n_sharing)
        if len(tokens):
            check_batch(batch, self.model.vocab_size, self.model.block_size)
            if self._rows_at_once is None:
                self._rows_at_once = self._measure_rows(batch)
            for first_row in range(0, len(tokens), self._rows_at_once):
                rows = tokens[first_row : first_row + self._rows_at_once]
                self.sums.update(partial(self._contribute, self.engine, rows, batch_id, first_row))
        return {}

    def _contribute(
        self, engine: Engine, tokens: Int[Tensor, "rows seq"], batch_id: int, first_row: int, sums: Sums
    ) -> None:
        if not is_in_share(batch_id, self.abs_share):
            sums = sums.signed()
        add_batch_(sums, self.model, self.topology, engine, tokens, batch_id, first_row)

    def _measure_rows(self, batch: TokenBatch) -> int:
        """How many rows of a batch to take at once; a trial of a few rows, whose sums are dropped."""
        truncated = self.engine.truncated()
        limit = self._memory_limit - self.engine.reserved_bytes

        def trial(sums: Sums, rows: Int[Tensor, "rows seq"]) -> None:
            with torch.enable_grad():
                self._contribute(truncated, rows, _WITH_ABS, 0, sums)

        rows = rows_that_fit(partial(trial, self.sums.trial()), batch.tokens, limit)
        if rows < len(batch.tokens):
            rank_zero_info(
                f"lit_attr: taking {rows} of {len(batch.tokens)} rows at once, to stay within {limit / 1e9:.3g} GB"
            )
        return rows

    def _data(self) -> object:
        """The trainer's data module; None where it has none."""
        return getattr(self.trainer, "datamodule", None)


def started(value: _Value | None) -> _Value:
    """A value that exists once a harvest has started.

    Raises:
        ConfigurationError: If it has not.
    """
    if value is None:
        raise ConfigurationError("the harvest has not started: `Trainer.predict` does that")
    return value
