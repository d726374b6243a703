"""Generations: which worker does which batches, and which finished parts already count.

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
from lit_attr.topology.words import PARTS_FOLDER

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
    """

    folder: Path
    plan: Plan
    number: int
    world_size: int
    n_batches: int
    frozen: Sequence[tuple[str, Ranges]]
    data_digest: str | None = None

    @property
    def path(self) -> Path:
        """Where it is written down."""
        return generation_path(self.folder, self.number)

    def part_path(self, rank: int) -> Path:
        """The file of a worker's part."""
        return self._path_of(_PART, rank)

    def record_path(self, rank: int) -> Path:
        """The file in which a worker says where it runs, and how it ended."""
        return self._path_of(_RECORD, rank)

    def _path_of(self, name: str, rank: int) -> Path:
        suffix = f"_generation_{self.number}" if self.number > 1 else ""
        return self.folder / PARTS_FOLDER / name.format(rank=rank, generation=suffix)

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
        there = names_in(self.folder / PARTS_FOLDER)
        return [rank for rank in range(self.world_size) if path(rank).name in there]

    def check_ledger(self, path: Path, rank: int, ledger: Ledger) -> None:
        """Check that a part is this worker's, of this generation.

        Raises:
            StorageError: If it is not.
        """
        expected = (self.plan.digest, self.number, rank, self.world_size)
        recorded = (ledger.plan, ledger.generation, ledger.rank, ledger.world_size)
        for what, one, other in zip(("harvest", "generation", "rank", "world size"), expected, recorded, strict=True):
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


def newest_generation(folder: Path, plan: Plan) -> Generation | None:
    """The newest generation of a harvest; None before the first.

    Raises:
        StorageError: If its file is damaged.
    """
    numbers = [int(match[1]) for name in names_in(folder) if (match := _GENERATION.fullmatch(name))]
    return read_generation(folder, plan, max(numbers)) if numbers else None


def read_generation(folder: Path, plan: Plan, number: int) -> Generation:
    """A generation that was begun.

    Raises:
        StorageError: If its file is missing or damaged.
    """
    path = generation_path(folder, number)
    stored = read_object(path, _Stored)
    try:
        for _, ranges in stored.frozen:
            check_ranges(ranges, stored.n_batches)
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}") from error
    if sum(count(ranges) for _, ranges in stored.frozen) > stored.n_batches:
        raise StorageError(f"{path} is damaged: its frozen parts hold more than {stored.n_batches} batches")
    return Generation(folder, plan, number, **vars(stored))


def begun_generation(folder: Path) -> Generation:
    """The newest generation of a harvest.

    Raises:
        StorageError: If the harvest has not begun, or a file of it is damaged.
    """
    generation = newest_generation(folder, Plan.load(folder))
    if generation is None:
        raise StorageError(f"{folder}: the harvest has not begun, there are no parts")
    return generation


def generation_path(folder: Path, number: int) -> Path:
    """The file in which a generation is written down."""
    return folder / f"generation_{number}.json"
