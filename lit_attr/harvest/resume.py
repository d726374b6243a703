"""Which harvest a process works on: one that it continues, or a new one."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lit_attr.errors import ConfigurationError, StorageError, few
from lit_attr.files.publish import make_folder
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.parts.ending import end_settled
from lit_attr.parts.freeze import current_generation
from lit_attr.parts.generations import Generation, newest_generations
from lit_attr.parts.plan import Plan
from lit_attr.parts.present_workers import Presence
from lit_attr.parts.software import Software, named_versions, software
from lit_attr.parts.worker_record import slurm_job
from lit_attr.storage.result_folders import Place, create_subrun, result_in, subrun_folder, subruns
from lit_attr.topology.words import PLAN_FILE, Harvested

_log = logging.getLogger(__name__)
# How often a harvest is joined again that others remove this moment; each of them leaves once.
_MAX_ATTEMPTS = 100
# The entry by which a plan knows its data.
_DIGEST = "data_digest"


@dataclass(frozen=True)
class HarvestSettings:
    """What decides the numbers of a harvest, beside its data.

    Attributes:
        run_id: Id of the decomposition run.
        weights_digest: Digest of its weights.
        precision: Precision of the trainer.
        metrics: Which metrics are summed.
        abs_share: Share of the sequences whose `attr_abs` is summed.
        uncertainty: Whether standard errors are harvested.
        targets: How the components that are targets are found, in plain types.
        software: Name to version of what computes.
        any_versions: Whether a harvest of other versions may be continued.
    """

    run_id: str
    weights_digest: str
    precision: str
    metrics: Harvested
    abs_share: float
    uncertainty: bool
    targets: Mapping[str, Any]
    software: Software = field(default_factory=software)
    any_versions: bool = False

    @property
    def versions(self) -> dict[str, str]:
        """The versions that are compared, by name."""
        return {} if self.any_versions else named_versions(self.software)

    def entries(self, data: TokenDataModule, n_batches: int) -> dict[str, Any]:
        """The entries of a new plan.

        Args:
            data: The data, open.
            n_batches: Number of batches of the plan.
        """
        return {**self.entries_but_data(data), **self.data_entry(data, n_batches)}

    def entries_but_data(self, data: TokenDataModule) -> dict[str, Any]:
        """The entries of a plan for which no row of the data is read."""
        return {
            "weights_digest": self.weights_digest,
            "seq_len": data.seq_len,
            "batch_size": data.batch_size,
            **data.order_entries(),
            "precision": self.precision,
            "metrics": self.metrics,
            "abs_share": self.abs_share,
            "uncertainty": self.uncertainty,
            "target_shards": data.target_shards,
            **self.targets,
        }

    def data_entry(self, data: TokenDataModule, n_batches: int) -> dict[str, str]:
        """The entry of a plan by which it knows its data.

        Args:
            data: The data, open.
            n_batches: Number of batches of the plan.
        """
        return {_DIGEST: data.digest(max(n_batches, self.targets.get("alive_batches") or 0))}


def check_same_settings(entries: Sequence[Mapping[str, Any]]) -> None:
    """Check that all processes of a trainer harvest the same.

    They may be started on different machines, by different commands or with different files of one name: what they add
    up would belong to no harvest.

    Args:
        entries: The settings of each process, in the order of their ranks: those of a plan, and `n_batches`.

    Raises:
        ConfigurationError: If a process has others than the first; it names the differences.
    """
    first, *others = entries
    if differences := [
        f"{name}: process 0 has {first.get(name)!r}, process {rank} has {other.get(name)!r}"
        for rank, other in enumerate(others, start=1)
        for name in {**first, **other}
        if first.get(name) != other.get(name)
    ]:
        raise ConfigurationError(f"the processes of this harvest have different settings or data: {few(differences)}")


def open_harvest(
    settings: HarvestSettings,
    data: TokenDataModule,
    world_size: int,
    place: Place,
    *,
    stop_error: float | None = None,
) -> tuple[dict[int, Generation], Presence]:
    """Find the harvest that these settings continue, or begin one.

    It is the one with the given id; else, of those with equal settings and no more batches, the one that this SLURM job
    began, if the job was started again; else the newest unfinished one of them; else a new one.

    Args:
        settings: Settings of the harvest.
        data: The data, open.
        world_size: Number of workers that share the batches.
        place: Where it belongs.
        stop_error: The relative error below which it is settled: where it was, it has the batches of that time alone.
            None for all batches of the data.

    Returns:
        Target shard to its generation, for those of this trainer; and the mark that this process works on the harvest.

    Raises:
        ConfigurationError: If the harvest with the given id has other settings; it names them.
        StorageError: If a file of it is damaged, or cannot be written.
    """
    presence = _join(settings, data, place)
    try:
        plan = Plan.load(presence.folder)
        if differences := _differences(presence.folder, plan, settings, data):
            raise ConfigurationError(f"cannot continue {presence.folder}: {'; '.join(differences)}")
        n_batches = end_settled(presence.folder, plan, data.digest, stop_error) if stop_error is not None else None
        begin = partial(current_generation, presence.folder, plan, world_size, n_batches or data.n_batches, data.digest)
        return {shard: begin(shard=shard) for shard in data.shards}, presence
    except BaseException:
        presence.leave()
        raise


def _join(settings: HarvestSettings, data: TokenDataModule, place: Place) -> Presence:
    """Say that this process works on the harvest, before anything of it is read: nobody removes it from now on.

    Until then another process may, which has given up before the first commit: then it is sought, or begun, again.
    """
    new = Plan(settings.entries(data, data.n_batches), data.n_batches, slurm_job(), settings.software)
    for attempt in range(_MAX_ATTEMPTS):
        try:
            folder = _folder(settings, data, place)
            _begin(new, folder)
        except (StorageError, FileNotFoundError) as error:
            removed = isinstance(error.__cause__ or error, FileNotFoundError | FileExistsError)
            if not removed or attempt == _MAX_ATTEMPTS - 1:
                raise
        else:
            presence = Presence(folder)
            if presence.counts:
                return presence
            presence.leave()
    raise StorageError(f"{folder}: other processes remove this harvest again and again")


def _begin(plan: Plan, folder: Path) -> None:
    """Write the plan of a harvest, unless another worker has; where that is refused, leave no empty folder."""
    make_folder(folder)
    if (folder / PLAN_FILE).exists():
        return
    if result_in(folder) is not None:  # of another tool, or copied; it would be replaced in the end
        raise StorageError(f"{folder} holds a result without a harvest: give --writer.subrun_id a new name")
    try:
        plan.publish(folder)
    except FileExistsError:  # another worker of this harvest was faster
        pass
    except StorageError:
        with suppress(OSError):
            folder.rmdir()
        raise


def _folder(settings: HarvestSettings, data: TokenDataModule, place: Place) -> Path:
    if place.subrun_id is not None:
        return subrun_folder(settings.run_id, place.subrun_id, place.out_dir, place.layout)
    if data.independent:
        raise ConfigurationError(
            f"data.world_size is {data.world_size}, of {data.target_shards} target shards: independent workers of one "
            "harvest must be given its id, the same for all of them: --writer.subrun_id da-NAME"
        )
    started_again = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
    unfinished: list[Path] = []
    for folder in subruns(settings.run_id, place.out_dir):
        finished = result_in(folder) is not None
        if not (folder / PLAN_FILE).exists() or (finished and not started_again):
            continue
        try:
            plan = Plan.load(folder)
            differences = _differences(folder, plan, settings, data)
        except StorageError as error:  # what cannot be read is nobody's to continue
            differences = [str(error)]
        if not differences and started_again and plan.job == slurm_job():
            return folder  # also a finished one: a job may be started again after its last word
        if not differences and not finished:
            unfinished.append(folder)
        elif not finished:
            _log.info(f"not continuing the unfinished {folder}: {'; '.join(differences)}")
    return unfinished[0] if unfinished else create_subrun(settings.run_id, place.out_dir, place.layout)


def _differences(folder: Path, plan: Plan, settings: HarvestSettings, data: TokenDataModule) -> list[str]:
    """What keeps a harvest from being continued; empty if nothing does."""
    entries = settings.entries_but_data(data)
    if (entries.get("alive_batches"), plan.entries.get("alive_batches")) == (None, None):
        entries["ci_threshold"] = plan.entries.get("ci_threshold")  # decides nothing, and may be set no more
    data_of_plan = plan.entries.get(_DIGEST)
    differences = [*plan.differences({**entries, _DIGEST: data_of_plan}), *_other_versions(plan, settings)]
    begun = [generation for generation in newest_generations(folder, plan) if generation is not None]
    n_batches = max((generation.n_batches for generation in begun), default=plan.n_batches)
    if n_batches > data.n_batches:
        differences.append(f"n_batches: the harvest has {n_batches}, this command {data.n_batches}")
    if differences:  # the data of a harvest that is not continued may be far more than this command's: it is not read
        return differences
    differences = plan.differences({**entries, **settings.data_entry(data, plan.n_batches)})
    for n_batches, before in dict.fromkeys((generation.n_batches, generation.data_digest) for generation in begun):
        if before not in (None, now := data.digest(n_batches)):
            differences.append(
                f"data_digest: the harvest has {before!r} for its {n_batches} batches, this command {now!r}"
            )
    return differences


def _other_versions(plan: Plan, settings: HarvestSettings) -> list[str]:
    """Which versions are others than those that a harvest began with, where it recorded them."""
    before = named_versions(plan.software or {})
    return [
        f"{name}: the harvest has {before[name]}, this command {version} (--writer.allow_other_versions true goes on)"
        for name, version in settings.versions.items()
        if before.get(name, version) != version
    ]
