"""Generations: which worker does which batches, and which finished parts already count.

Where targets are dealt out, each shard of them has generations of its own, in a folder of its own: it goes through the
same batches as the others, by its own workers.

A restart with as many workers goes on with the parts of the newest generation. A restart with another number of
workers, or with more batches, begins a new generation (see `lit_attr.parts.freeze`): it freezes the parts that are
there by linking them under names of its own and deals out the batches that none of them holds. Only linked parts and
those of the newest generation count, so that a worker of an older one that is still alive publishes into nothing.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, StringConstraints

from lit_attr.data.batch_ids import MAX_BATCHES, Ids, Ranges, check_ranges, count, show
from lit_attr.errors import StorageError
from lit_attr.files.json_file import read_object
from lit_attr.files.publish import names_in
from lit_attr.parts.ledger import Ledger, StoredRanges, WorldSize
from lit_attr.parts.plan import Plan
from lit_attr.topology.words import PARTS_FOLDER, SHARD_FOLDER

_PART = "dataset_attributions_rank_{rank}{generation}.pt"
_RECORD = "worker_{rank}{generation}.json"
# Numbers of nine digits are as many as Python reads at no risk.
_GENERATION = re.compile(r"generation_([1-9]\d{0,8})\.json")
_FROZEN = r"^frozen_generation_\d+_rank_\d+_[0-9a-f]+\.pt$"


@dataclass(frozen=True)
class Generation:
    """Who does what.

    Attributes:
        folder: The harvest's folder.
        plan: Its plan.
        number: Its place in the order of generations, from 1.
        world_size: Number of workers.
        n_batches: Batches of the harvest.
        frozen: Files in `worker_states` that count, with the ranges of their batches.
        data_digest: Digest of the data of all its batches; None where that was not recorded.
        shard: Which of the plan's target shards it works on, from 0.
        is_settled: Whether the harvest ended with it, before all batches that it was to have, since it was settled.
    """

    folder: Path
    plan: Plan
    number: int
    world_size: int
    n_batches: int
    frozen: Sequence[tuple[str, Ranges]]
    data_digest: str | None = None
    shard: int = 0
    is_settled: bool = False

    @property
    def place(self) -> Path:
        """The folder in which its shard's generations are written down, and which has their parts."""
        return shard_folder(self.folder, self.plan, self.shard)

    @property
    def of_shard(self) -> str:
        """What a message says of its shard behind the name of a worker; empty where there is one."""
        return f" of target shard {self.shard}" if self.plan.target_shards > 1 else ""

    @property
    def path(self) -> Path:
        """Where it is written down."""
        return self.path_of(self.number)

    def path_of(self, number: int) -> Path:
        """Where another generation of its shard is written down."""
        return _generation_path(self.place, number)

    def part_path(self, rank: int) -> Path:
        """The file of a worker's part."""
        return self._path_of(_PART, rank)

    def record_path(self, rank: int) -> Path:
        """The file in which a worker says where it runs, and how it ended."""
        return self._path_of(_RECORD, rank)

    def _path_of(self, name: str, rank: int) -> Path:
        suffix = f"_generation_{self.number}" if self.number > 1 else ""
        return self.place / PARTS_FOLDER / name.format(rank=rank, generation=suffix)

    @property
    def n_frozen(self) -> int:
        """How many batches are in frozen parts."""
        return sum(count(ranges) for _, ranges in self.frozen)

    @cached_property
    def _dealt_out(self) -> Ids:
        """Batches that are in no frozen part."""
        free = np.ones(self.n_batches, dtype=bool)
        for _, ranges in self.frozen:
            for first, last, step in ranges:
                free[first : last + 1 : step] = False
        return np.flatnonzero(free)

    def assigned(self, rank: int) -> Ids:
        """Batches that a worker does, those it has done included."""
        return self._dealt_out[rank :: self.world_size]

    def n_assigned(self, rank: int) -> int:
        """How many batches a worker does; they are not written out."""
        return len(range(rank, self.n_batches - self.n_frozen, self.world_size))

    def ranks_with_parts(self) -> list[int]:
        """The workers that have committed something; found with one look at the folder, however many there are.

        Raises:
            StorageError: If it cannot be read.
        """
        return self._ranks_with(self.part_path)

    def ranks_with_records(self) -> list[int]:
        """The workers that have begun; as `ranks_with_parts`."""
        return self._ranks_with(self.record_path)

    def _ranks_with(self, path: Callable[[int], Path]) -> list[int]:
        there = names_in(self.place / PARTS_FOLDER)
        return [rank for rank in range(self.world_size) if path(rank).name in there]

    def blank_ledger(self, rank: int) -> Ledger:
        """The ledger of a worker that has done nothing."""
        place = self.plan.digest, self.number, rank, self.world_size
        return Ledger(*place, target_shard=self.shard, target_shards=self.plan.target_shards)

    def check_ledger(self, path: Path, rank: int, ledger: Ledger) -> None:
        """Check that a part is this worker's, of this generation.

        Raises:
            StorageError: If it is not.
        """
        shard = f"{self.shard} of {self.plan.target_shards}"
        for what, one, other in (
            ("harvest", self.plan.digest, ledger.plan),
            ("target shard", shard, f"{ledger.target_shard} of {ledger.target_shards}"),
            ("generation", self.number, ledger.generation),
            ("rank", rank, ledger.rank),
            ("world size", self.world_size, ledger.world_size),
        ):
            if one != other:
                raise StorageError(f"{path} is a foreign part: expected {what} {one}, found {other}")
        if len(foreign := self._foreign(rank, ledger.ids)):
            raise StorageError(f"{path} holds batches of other workers: {show(foreign)}")

    def _foreign(self, rank: int, ids: Ids) -> Ids:
        """Batches that are not a worker's; unlike `assigned`, it takes no time for those of all workers."""
        places = np.searchsorted(self._dealt_out, ids)
        inside = places < len(self._dealt_out)
        ours = inside & (places % self.world_size == rank)
        ours[inside] &= self._dealt_out[places[inside]] == ids[inside]
        return ids[~ours]


@dataclass(frozen=True)
class _Stored:
    """What a generation's file holds."""

    world_size: WorldSize
    n_batches: Annotated[int, Field(ge=1, le=MAX_BATCHES)]
    frozen: list[tuple[Annotated[str, StringConstraints(pattern=_FROZEN)], StoredRanges]] = field(default_factory=list)
    data_digest: str | None = None
    is_settled: bool = False


def newest_generation(folder: Path, plan: Plan, shard: int = 0) -> Generation | None:
    """The newest generation of a harvest, or of one of its target shards; None before the first.

    Raises:
        StorageError: If its file is damaged.
    """
    names = names_in(shard_folder(folder, plan, shard))
    numbers = [int(match[1]) for name in names if (match := _GENERATION.fullmatch(name))]
    return read_generation(folder, plan, max(numbers), shard) if numbers else None


def read_generation(folder: Path, plan: Plan, number: int, shard: int = 0) -> Generation:
    """A generation that was begun.

    Raises:
        StorageError: If its file is missing or damaged.
    """
    path = _generation_path(shard_folder(folder, plan, shard), number)
    stored = read_object(path, _Stored)
    try:
        for _, ranges in stored.frozen:
            check_ranges(ranges, stored.n_batches)
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}") from error
    if sum(count(ranges) for _, ranges in stored.frozen) > stored.n_batches:
        raise StorageError(f"{path} is damaged: its frozen parts hold more than {stored.n_batches} batches")
    return Generation(folder, plan, number, **vars(stored), shard=shard)


def begun_generation(folder: Path, shard: int = 0) -> Generation:
    """The newest generation of a harvest, or of one of its target shards.

    Raises:
        StorageError: If that has not begun, or a file of it is damaged.
    """
    plan = Plan.load(folder)
    generation = newest_generation(folder, plan, shard)
    if generation is None:
        raise _not_begun(folder, "the harvest" if plan.target_shards == 1 else f"target shard {shard}")
    return generation


def _not_begun(folder: Path, what: str) -> StorageError:
    return StorageError(f"{folder}: {what} has not begun, there are no parts")


def begun_generations(folder: Path) -> list[Generation | None]:
    """The newest generation of each target shard of a harvest; None for those that have not begun.

    Raises:
        StorageError: If none has, or a file of the harvest is damaged.
    """
    generations = newest_generations(folder, Plan.load(folder))
    if generations == [None] * len(generations):
        raise _not_begun(folder, "the harvest")
    return generations


def newest_generations(folder: Path, plan: Plan) -> list[Generation | None]:
    """The newest generation of each target shard; None for those that have not begun. Errors: `newest_generation`'s."""
    return [newest_generation(folder, plan, shard) for shard in range(plan.target_shards)]


def shard_folder(folder: Path, plan: Plan, shard: int) -> Path:
    """The folder of a target shard's generations and parts: the harvest's own, where targets are not dealt out.

    Args:
        folder: The harvest's folder.
        plan: Its plan.
        shard: The number of the shard, from 0.
    """
    return folder if plan.target_shards == 1 else folder / f"{SHARD_FOLDER}{shard}"


def _generation_path(place: Path, number: int) -> Path:
    return place / f"generation_{number}.json"
