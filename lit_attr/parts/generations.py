"""Generations: which worker does which batches, and which finished parts already count.

A restart with as many workers goes on with the parts of the newest generation. A restart with another number of
workers, or with more batches, begins a new generation: it freezes the parts that are there by linking them under names
of its own and deals out the batches that none of them holds. Only linked parts and those of the newest generation
count, so that a worker of an older one that is still alive publishes into nothing.
"""

import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_attr.data.batch_ids import Ids, all_ids, from_ranges, show, union, without
from lit_attr.errors import StorageError
from lit_attr.files.json_file import publish_json, read_json
from lit_attr.files.publish import keep, make_folder, sync_folder
from lit_attr.files.seal import check_seal
from lit_attr.parts.part import Ledger, read_ledger
from lit_attr.parts.plan import Plan
from lit_attr.topology.words import PARTS_FOLDER

_PART = "dataset_attributions_rank_{rank}{generation}.pt"
_GENERATION = re.compile(r"generation_(\d+)\.json")


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
    """

    folder: Path
    plan: Plan
    number: int
    world_size: int
    n_batches: int
    frozen: Sequence[tuple[str, list[list[int]]]]

    @property
    def path(self) -> Path:
        """Where it is written down."""
        return generation_path(self.folder, self.number)

    def part_path(self, rank: int) -> Path:
        """The file of a worker's part."""
        suffix = f"_generation_{self.number}" if self.number > 1 else ""
        return self.folder / PARTS_FOLDER / _PART.format(rank=rank, generation=suffix)

    @property
    def frozen_ids(self) -> Ids:
        """Batches in frozen parts."""
        return union(from_ranges(ranges) for _, ranges in self.frozen)

    def assigned(self, rank: int) -> Ids:
        """Batches that a worker does, those it has done included."""
        return without(all_ids(self.n_batches), self.frozen_ids)[rank :: self.world_size]

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
        if len(foreign := without(ledger.ids, self.assigned(rank))):
            raise StorageError(f"{path} holds batches of other workers: {show(foreign)}")


def newest_generation(folder: Path, plan: Plan) -> Generation | None:
    """The newest generation of a harvest; None before the first.

    Raises:
        StorageError: If its file is damaged.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {error}") from error
    numbers = [int(match[1]) for name in names if (match := _GENERATION.fullmatch(name))]
    if not numbers:
        return None
    path = generation_path(folder, max(numbers))
    content = read_json(path)
    try:
        frozen = [(str(name), list(ranges)) for name, ranges in content["frozen"]]
        return Generation(folder, plan, max(numbers), int(content["world_size"]), int(content["n_batches"]), frozen)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is damaged: {error!r}") from error


def begun_generation(folder: Path) -> Generation:
    """The newest generation of a harvest.

    Raises:
        StorageError: If the harvest has not begun, or a file of it is damaged.
    """
    generation = newest_generation(folder, Plan.load(folder))
    if generation is None:
        raise StorageError(f"{folder}: the harvest has not begun, there are no parts")
    return generation


def current_generation(folder: Path, plan: Plan, world_size: int, n_batches: int) -> Generation:
    """The generation in which so many workers go on; a new one where the newest does not fit.

    Safe if several workers call it at once.

    Raises:
        StorageError: If a part that would be frozen is damaged, or the newest generation has more batches.
    """
    while True:
        newest = newest_generation(folder, plan)
        if newest is None:
            current = Generation(folder, plan, 1, world_size, n_batches, [])
        elif newest.n_batches > n_batches:
            raise StorageError(
                f"{folder}: the harvest has {newest.n_batches} batches, this command {n_batches}: a harvest can "
                "grow, but not shrink"
            )
        elif (newest.world_size, newest.n_batches) == (world_size, n_batches):
            return newest
        else:
            current = Generation(folder, plan, newest.number + 1, world_size, n_batches, _freeze(newest))
        content = {"world_size": world_size, "n_batches": n_batches, "frozen": [list(part) for part in current.frozen]}
        make_folder(folder / PARTS_FOLDER)
        try:
            publish_json(current.path, content, replace=False)
        except FileExistsError:  # another worker was faster: its generation counts
            winner = newest_generation(folder, plan)
            counting = {name for name, _ in winner.frozen} if winner is not None else set()
            _unlink(folder, [name for name, _ in current.frozen if name not in counting])
            continue
        if newest is not None:
            _unlink(folder, [newest.part_path(rank).name for rank in range(newest.world_size)])
        return current


def generation_path(folder: Path, number: int) -> Path:
    """The file in which a generation is written down."""
    return folder / f"generation_{number}.json"


def _freeze(generation: Generation) -> list[tuple[str, list[list[int]]]]:
    """Give the parts of a generation names that no worker writes to; what they hold counts from now on."""
    frozen, linked = list(generation.frozen), []
    try:
        for rank in range(generation.world_size):
            part = generation.part_path(rank)
            # Unique, since several workers may try to begin the same generation.
            name = f"frozen_generation_{generation.number}_rank_{rank}_{uuid.uuid4().hex[:8]}.pt"
            try:
                keep(part, part.with_name(name))
            except FileNotFoundError:
                continue  # that worker has not committed anything
            linked.append(name)
            frozen.append((name, _checked_batches(generation, rank, part.with_name(name))))
        sync_folder(generation.folder / PARTS_FOLDER)
    except BaseException as error:
        _unlink(generation.folder, linked)
        if isinstance(error, OSError):
            raise StorageError(f"cannot link the parts in {generation.folder / PARTS_FOLDER}: {error}") from error
        raise
    return frozen


def _checked_batches(generation: Generation, rank: int, link: Path) -> list[list[int]]:
    """The batches of a part that was just linked.

    Raises:
        StorageError: If it is damaged or foreign.
    """
    try:
        check_seal(link)
        ledger = read_ledger(link)
        generation.check_ledger(link, rank, ledger)
    except StorageError as error:
        problem = str(error).replace(str(link), str(generation.part_path(rank)))
        batches = show(generation.assigned(rank))
        raise StorageError(f"{problem}; without this file its batches are done again: {batches}") from error
    return ledger.batches


def _unlink(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / PARTS_FOLDER / name).unlink(missing_ok=True)
