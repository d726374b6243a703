"""Committing a harvest while it runs, continuing one, and writing its result."""

from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from signal import Signals
from time import monotonic
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lit_attr.data.batch_ids import Ids, union
from lit_attr.data.token_file import TokenBatch
from lit_attr.errors import ConfigurationError, InterruptedHarvestError, StorageError
from lit_attr.harvest.commits import Commits
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester, started
from lit_attr.harvest.joining import join_in_time
from lit_attr.harvest.parties import data_of, harvester_of
from lit_attr.harvest.preemption import CTRL_C_EXIT_CODE, Decision, StopSignals, end_children, requeue
from lit_attr.harvest.processes import Processes
from lit_attr.harvest.record import harvest_record
from lit_attr.harvest.resume import HarvestSettings, check_same_settings, open_harvest
from lit_attr.harvest.stopping import Looks
from lit_attr.parts.counting import check_nothing_missing, counting_parts
from lit_attr.parts.generations import Generation
from lit_attr.parts.header import Header
from lit_attr.parts.history import record_generation
from lit_attr.parts.merge import check_form, merge_harvest, write_merged
from lit_attr.parts.present_workers import Presence
from lit_attr.parts.read_vectors import publish_read_vectors
from lit_attr.parts.software import Software, software
from lit_attr.parts.worker_record import WorkerRecord
from lit_attr.storage.result_folders import Place, run_folder
from lit_attr.storage.result_form import ResultForm
from lit_attr.topology.words import HEADER_FILE, DenseChoice, ResultDtype, ResultLayout

_LEAST_PATIENCE = 0.1  # minutes: processes give a sign of life once a second
# Their name in messages.
_SUMS_OF_ALL = "the sums of this trainer's processes"


class StorageWriter(Callback):
    """Commits what is done, continues a harvest that was stopped, and writes its result.

    A harvest has a folder, `<out_dir>/dataset_attributions/<run_id>/da-YYYYMMDD_HHMMSS`. Every process commits its sums
    there from time to time, with the ids of the batches in them: `worker_states/dataset_attributions_rank_*.pt`. The
    same command continues a harvest that has no result yet, with as many processes or another number of them. At the
    end the sums of all processes of the trainer are reduced, and the first writes `dataset_attributions.pt`;
    independent workers (`data.world_size`) leave their parts to `lit-attr merge`.

    Args:
        out_dir: Root of the results; else `$LIT_ATTR_OUT_DIR`, `$SPD_OUT_DIR`, `$PARAM_DECOMP_OUT_DIR`, or `./out`.
        subrun_id: Id of the harvest, `da-` and a name: continued if it is there, refused if it has other settings.
        commit_minutes: Minutes between commits; more where a commit takes longer than 2 % of that.
        commit_batches: Batches of a process between commits, instead.
        patience_minutes: Minutes for which the processes of a trainer wait for one that is silent, and, on the command
            line, for each other when they start. A process that is at work, however long, is not silent.
        allow_other_versions: Whether a process goes on whose versions of `lit_attr` and torch are not those that the
            harvest began with, or of transformers, where the model is theirs; the result records all of them.
        dense: Whether the result has the format of goodfire-ai/spd, with places for all components: `always`, `never`
            (then `dataset_attributions.compact.pt`, with places for live ones alone), or `auto`: up to 4 GB.
        keep: Write so many of the strongest edges of everything alone (`dataset_attributions.strongest`); what is
            dropped is counted. The parts stay, so that `lit-attr merge` can write all edges later. None for all edges.
        dtype: Type of the sums of edges into components: `float32`, or `bfloat16`, half as large, in the compact form
            alone, with an error that is measured and stored.
        layout: Where the folder of a new harvest is: as above, or, for `param_decomp`, as goodfire-ai/param-decomp has
            it, in `<out_dir>/runs/<run_id>/dataset_attributions`. Results are found in both.

    Attributes:
        path: The written file; None before, and for independent workers.
        folder: The harvest's folder; None before it is known.
        interruption: Why the harvest was stopped, where Lightning's own exception does not say so; None before.

    Raises:
        ConfigurationError: If a number is not positive.
    """

    def __init__(
        self,
        out_dir: str | Path | None = None,
        subrun_id: str | None = None,
        commit_minutes: float = 10.0,
        commit_batches: int | None = None,
        patience_minutes: float = 5.0,
        *,
        allow_other_versions: bool = False,
        dense: DenseChoice = "auto",
        keep: int | None = None,
        dtype: ResultDtype = "float32",
        layout: ResultLayout = "spd",
    ) -> None:
        super().__init__()
        self._form = ResultForm(dense, keep, dtype)
        if not commit_minutes > 0 or (commit_batches is not None and commit_batches < 1):
            raise ConfigurationError(
                f"writer.commit_minutes and commit_batches must be positive, found {commit_minutes}, {commit_batches}"
            )
        if not patience_minutes >= _LEAST_PATIENCE:
            raise ConfigurationError(
                f"writer.patience_minutes must be at least {_LEAST_PATIENCE}, found {patience_minutes}"
            )
        self.out_dir = out_dir
        self.subrun_id = subrun_id
        self.layout = layout
        self.commit_minutes = commit_minutes
        self.commit_batches = commit_batches
        self.patience_minutes = patience_minutes
        self.allow_other_versions = allow_other_versions
        self.path: Path | None = None
        self.folder: Path | None = None
        self.interruption: InterruptedHarvestError | None = None
        self._signals = StopSignals()
        # Known once the processes are connected, after setup, and once the trainer has started.
        self._processes: Processes | None = None
        self._generations: dict[int, Generation] = {}
        self._commits: Commits | None = None
        self._header: Header | None = None
        self._record: WorkerRecord | None = None
        self._requeued = False
        self._is_settled = False
        self._n_catching_up = 0  # steps until all processes have done as many batches
        # On the first process of the trainer.
        self._looks: Looks | None = None
        self._presence: Presence | None = None
        self._new_folders: list[Path] = []

    @property
    def commits(self) -> Commits:
        """What this process has done; after `setup`."""
        return started(self._commits)

    @property
    def header(self) -> Header:
        """What all parts of the harvest share; after `on_predict_start`."""
        return started(self._header)

    @property
    def processes(self) -> Processes:
        """All processes of the trainer; after they are connected."""
        return started(self._processes)

    @property
    def silence(self) -> str | None:
        """Which other process of the trainer has not been heard for some time, and for how long; None if all are."""
        watch = None if self._processes is None else self._processes.watch
        return None if watch is None else watch.silence

    def join_in_time(self, trainer: Trainer) -> None:
        """Bound how long processes wait for each other to start, and watch them from then on, not only from `setup` on.

        Args:
            trainer: The trainer, before its loop; `lit-attr predict` calls this.
        """
        join_in_time(trainer, self.patience_minutes * 60, partial(self._connect, trainer))

    def _connect(self, trainer: Trainer) -> None:
        self._processes = Processes.of(trainer, self.patience_minutes * 60)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the harvest, and deal out the batches that are not in it yet."""
        self._signals.install(trainer)
        self._record, self._looks, self._requeued, self._is_settled = None, None, False, False
        self.path = self.folder = self.interruption = None
        harvester, data = harvester_of(pl_module), data_of(trainer)
        rank, world_size = data.worker()
        if self._processes is None:
            self._connect(trainer)
        self.processes.on_each(harvester.check)
        if harvester.stop_rule is not None and data.independent:
            raise ConfigurationError(
                "model.stop_when ends the processes of one trainer together, and independent workers know nothing of "
                "each other: drop it, or data.world_size (with --trainer.devices and --trainer.num_nodes)"
            )
        settings = self.processes.on_each(partial(self._settings, trainer, harvester))
        entries = self.processes.on_each(partial(settings.entries, data, data.n_batches))
        entries |= {"n_batches": data.n_batches, "float32_matmul_precision": torch.get_float32_matmul_precision()}
        check_same_settings(self.processes.gathered({**entries, **settings.versions}))
        stop_error = None if harvester.stop_rule is None else harvester.stop_rule.error
        self._generations = self.processes.on_first(partial(self._open, settings, data, world_size, stop_error))
        generation = self._generations[data.shard]
        self.folder = generation.folder
        data.shorten(generation.n_batches)
        self.processes.on_first(partial(check_form, self.folder, self._form))
        self._commits = self.processes.on_each(
            partial(Commits, generation, rank, self.commit_minutes, self.commit_batches, settings.software)
        )
        self._write_record(WorkerRecord.of_this_process())
        remaining, n_done = self._commits.remaining, len(self._commits.done)
        lead = n_done + self.processes.greatest(-n_done)
        self._n_catching_up = self.processes.greatest(lead)
        data.assign(remaining, max(1, self.processes.greatest(lead + len(remaining))), lead)
        rank_zero_info(f"lit_attr: harvest {self.folder}")

    def _settings(self, trainer: Trainer, harvester: AttributionHarvester) -> HarvestSettings:
        run = harvester.load_run()
        by, any_versions = software(*run.model.libraries), self.allow_other_versions
        precision, targets = str(trainer.precision), harvester.target_settings()
        sums = harvester.metrics, harvester.abs_share, harvester.uncertainty
        return HarvestSettings(run.run_id, run.weights_digest, precision, *sums, targets, by, any_versions)

    def _open(
        self, settings: HarvestSettings, data: TokenDataModule, world_size: int, stop_error: float | None
    ) -> dict[int, Generation]:
        """Find or begin the harvest, and mark it as worked on; the generations of this trainer's target shards."""
        self._new_folders = _missing(run_folder(settings.run_id, self.out_dir, self.layout))
        place = Place(self.out_dir, self.subrun_id, self.layout)
        generations, self._presence = open_harvest(settings, data, world_size, place, stop_error=stop_error)
        return generations

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Agree with all workers, past and present, on the targets, and begin with what is committed."""
        harvester = harvester_of(pl_module)
        self.processes.on_first(partial(self._begin, trainer, harvester))
        self._header = self.processes.on_each(self._load_header)
        harvester.set_targets(self.header.alive)
        self.processes.on_each(partial(self.commits.restore, harvester.sums))
        done = self._done_by_all()
        n_done = {shard: generation.n_frozen + len(done[shard]) for shard, generation in self._generations.items()}
        if any(n_done.values()):
            of = self._generations
            counts = [f"{n} of {of[shard].n_batches} batches{of[shard].of_shard}" for shard, n in n_done.items()]
            rank_zero_info(f"lit_attr: continuing, with {', '.join(counts)} done")
        if (rule := harvester.stop_rule) is not None and trainer.is_global_zero:
            self._looks = Looks(rule, self.commits.generation.folder, self.commits.generation.n_batches)

    def _begin(self, trainer: Trainer, harvester: AttributionHarvester) -> None:
        """Write down what all parts share, where no worker has, and what this generation is run with."""
        folder = self.commits.generation.folder
        is_new = not (folder / HEADER_FILE).exists()
        alive = harvester.find_alive() if is_new else Header.load(folder).alive
        data_of(trainer).check_unchanged()  # the digest in the plan is that of the rows that were looked at
        known = harvest_record(trainer, harvester, data_of(trainer), alive, {"out_dir": self.out_dir})
        publish_read_vectors(folder, harvester.read_vectors(alive).vectors)
        if is_new:
            threshold = harvester.target_rule.ci_threshold
            Header(harvester.topology, alive, harvester.model.unembedding, threshold, known).publish(folder)
        for generation in self._generations.values():
            record_generation(generation, known)

    def _load_header(self) -> Header:
        """Read what the first process has written, if not another worker before."""
        try:
            return Header.load(self.commits.generation.folder)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise StorageError(f"{error}. The first process has it: do all machines share this folder?") from error
            raise

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at the end of a step from now on, and no longer at once."""
        self._signals.defer()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's own signature
        batch: TokenBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the batch, and commit where it is time to, or stop where any process was told to.

        Raises:
            InterruptedHarvestError: If one was.
        """
        if batch.batch_id >= 0:
            self.commits.add(batch.batch_id)
        due = Decision.COMMIT if self.commits.due() else Decision.GO_ON
        if self._looks is not None and batch_idx + 1 >= self._n_catching_up and self._looks.due(self._n_done):
            due = Decision.LOOK
        decision = self.processes.greatest(max(self._signals.decision, due))
        if decision != Decision.GO_ON:
            self._commit(pl_module)
        if decision == Decision.LOOK:
            self._look(data_of(trainer))
        if decision == Decision.REQUEUE:
            self._requeued = requeue(trainer)
            self.processes.greatest(0)  # srun ends all once one has ended: none may before SLURM was asked
        if decision in (Decision.REQUEUE, Decision.STOP):
            self._stop()

    @property
    def _n_done(self) -> int:
        """Batches that all processes of the shard have done, if these have done as many as this one."""
        generation = self.commits.generation
        return min(generation.n_frozen + generation.world_size * len(self.commits.done), generation.n_batches)

    def _look(self, data: TokenDataModule) -> None:
        """End the harvest if it is settled: no more batches come, and what is committed is all of it."""
        n_batches = self.processes.on_first(lambda: started(self._looks).look(data.digest))
        if n_batches is not None:
            rank_zero_info(f"lit_attr: settled, ending after {n_batches} of {data.n_batches} batches")
            self._is_settled = True
            data.end()

    def _commit(self, pl_module: LightningModule) -> None:
        begin = monotonic()
        self.processes.on_each(partial(self._commit_own, data_of(pl_module.trainer), harvester_of(pl_module)))
        self.commits.rest(monotonic() - begin)

    def _commit_own(self, data: TokenDataModule, harvester: AttributionHarvester) -> None:
        data.check_unchanged()
        self.commits.commit(harvester.sums)

    def _stop(self) -> None:
        name = self._signals.received.name if self._signals.received else "a signal to another process"
        commits, generation = self.commits, self.commits.generation
        raise InterruptedHarvestError(
            f"stopped by {name}: worker {commits.rank}{generation.of_shard} has committed {len(commits.done)} of "
            f"{len(generation.assigned(commits.rank))} batches in {self.folder}; the same command continues",
            CTRL_C_EXIT_CODE if self._signals.received is Signals.SIGINT else InterruptedHarvestError.exit_code,
        )

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Commit, reduce the sums over all processes, and write the result on the first.

        Where targets are dealt out, or the harvest ends early, nothing is reduced: the first process unites what all
        have committed.

        Raises:
            StorageError: If it cannot be written, or batches are missing.
        """
        harvester = harvester_of(pl_module)
        self._commit(harvester)
        if data_of(trainer).independent:
            return  # `lit-attr merge` does the rest, once all workers are done
        if self.commits.generation.plan.target_shards > 1 or self._is_settled:
            self.path = self.processes.on_first(partial(merge_harvest, self.commits.generation.folder, self._form))
            rank_zero_info(f"lit_attr: wrote {self.path}")
            return
        (done,) = self._done_by_all().values()
        by = [versions for many in self.processes.gathered(self.commits.software) for versions in many]
        with self.processes.alive():
            harvester.sums.sync()
        self.path = self.processes.on_first(partial(self._write, harvester, done, by))

    def _done_by_all(self) -> dict[int, Ids]:
        """Target shard to the batches that are in the sums of any of its processes."""
        done = self.processes.gathered((self.commits.generation.shard, self.commits.done))
        return {shard: union(ids for of, ids in done if of == shard) for shard in self._generations}

    def _write(self, harvester: AttributionHarvester, done: Ids, by: list[Software]) -> Path:
        generation, header = self.commits.generation, self.header
        frozen = list(counting_parts(generation, header.layout(generation), only_frozen=True))
        ids = union([done, *(part.ids for part in frozen)])
        remedy = (
            "Put the file back, or write a partial result with `lit-attr merge` and --allow_partial, or begin a new "
            "harvest: all that was done since is committed"
        )
        check_nothing_missing(generation, ids, remedy)
        by = [*(versions for part in frozen for versions in part.ledger.software), *by]
        parts = {_SUMS_OF_ALL: harvester.sums.totals, **{str(part.path): part.sums for part in frozen}}
        path = write_merged([generation], header, parts, ids, by, self._form)
        rank_zero_info(f"lit_attr: wrote {path}")
        return path

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the other processes, and let those listen to signals who did before."""
        self.processes.leave()
        self._processes = None
        self._signals.restore()
        if self._record is not None:
            self._write_record(self._record.done())
        if self._presence is not None:
            self._presence.leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing behind: no process, no folder without a commit; Lightning calls it in place of `teardown`."""
        if self._processes is not None:
            exception = self._processes.give_up(exception)
            self.interruption = exception if isinstance(exception, InterruptedHarvestError) else None
            self._processes = None
        end_children(trainer)
        if self._presence is None or self._presence.abandon():
            self._remove_new_folders()
        if self._signals.asks_to_requeue:
            self._requeued = requeue(trainer, has_begun=False)
        if self._record is not None:
            stopped = isinstance(exception, InterruptedHarvestError)
            self._write_record(self._record.ended_by(exception, stopped=stopped, requeued=self._requeued))
        self._signals.restore()

    def _write_record(self, record: WorkerRecord) -> None:
        self._record = record
        record.write(self.commits.generation.record_path(self.commits.rank))

    def _remove_new_folders(self) -> None:
        with suppress(OSError):  # another harvest is there by now
            for folder in self._new_folders:
                folder.rmdir()


def _missing(folder: Path) -> list[Path]:
    """A folder and those above it, as far as there are none."""
    return list(takewhile(lambda path: not path.exists(), [folder, *folder.parents]))
