"""All parts of a harvest that count, checked one by one and against each other."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_attr.data.batch_ids import Ids, all_ids, from_ranges, show, to_ranges, union, without
from lit_attr.errors import StorageError
from lit_attr.parts.generations import Generation, newest_generation
from lit_attr.parts.part import read_ledger, read_part
from lit_attr.parts.plan import Plan
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import PARTS_FOLDER


@dataclass(frozen=True)
class Gathered:
    """The parts of a harvest.

    Attributes:
        sums: Of the parts, memory-mapped.
        ids: Batches in them.
        n_batches: Batches of the harvest.
    """

    sums: list[Sums]
    ids: Ids
    n_batches: int

    @property
    def missing(self) -> Ids:
        """Batches in none of them."""
        return without(all_ids(self.n_batches), self.ids)

    def coverage(self) -> dict[str, Any]:
        """As the provenance records it."""
        return coverage(self.ids, self.n_batches)


def coverage(ids: Ids, n_batches: int) -> dict[str, Any]:
    """What a result covers, in plain types.

    Args:
        ids: Batches in it.
        n_batches: Batches of the harvest.
    """
    return {"n_batches": n_batches, "batches": to_ranges(ids), "complete": len(ids) == n_batches}


def gather(folder: Path, topology: Topology, allow_partial: bool = False) -> Gathered:
    """Open all parts that count.

    Args:
        folder: Of the harvest.
        topology: Of its model.
        allow_partial: Whether batches may be missing.

    Raises:
        StorageError: If a part is missing, damaged, foreign, or holds batches that another holds too; it names the
            file and the batches.
    """
    plan = Plan.load(folder)
    generation = newest_generation(folder, plan)
    if generation is None:
        raise StorageError(f"{folder}: the harvest has not begun, there are no parts")
    _refuse_foreign_names(generation)
    sums: list[Sums] = []
    seen: dict[str, Ids] = {}
    for path, rank, batches in _counting(generation):
        if not os.path.exists(path):
            continue  # reported as missing batches
        part, ids = _open(generation, path, rank, batches, topology)
        for other, others in seen.items():
            if len(twice := np.intersect1d(others, ids)):
                raise StorageError(f"{path.name} and {other} in {path.parent} hold the same batches: {show(twice)}")
        seen[path.name] = ids
        sums.append(part)
    found = Gathered(sums, union(seen.values()), generation.n_batches)
    if len(found.missing) and not allow_partial:
        absent = [path.name for path, *_ in _counting(generation) if path.name not in seen]
        files = f"; no file {', '.join(absent)}" if absent else ""
        raise StorageError(
            f"{folder}: of {found.n_batches} batches {show(found.missing)} are missing{files}. Let the workers finish, "
            "or write a partial result with --allow_partial"
        )
    return found


def _counting(generation: Generation) -> Iterator[tuple[Path, int | None, Ids]]:
    """Files that count: frozen ones with their batches, then the newest generation's, with ranks and assignments."""
    parts = generation.folder / PARTS_FOLDER
    for name, ranges in generation.frozen:
        yield parts / name, None, from_ranges(ranges)
    for rank in range(generation.world_size):
        yield generation.part(rank), rank, generation.assigned(rank)


def _open(generation: Generation, path: Path, rank: int | None, batches: Ids, topology: Topology) -> tuple[Sums, Ids]:
    """A part that counts, and its batches."""
    try:
        part, ledger = read_part(path, topology)
        if rank is not None:
            generation.check_ledger(path, rank, ledger)
        elif ledger.plan != generation.plan.digest or not np.array_equal(ledger.ids, batches):
            raise StorageError(f"{path} is a foreign part: it holds batches {show(ledger.ids)}")
    except StorageError as error:
        raise StorageError(f"{error}. Expected there are batches {show(batches)}") from error
    return part, ledger.ids


def _refuse_foreign_names(generation: Generation) -> None:
    """Files that look like parts of the newest generation and are none of its workers'."""
    names = {generation.part(rank).name for rank in range(generation.world_size)}
    suffix = f"_generation_{generation.number}.pt"
    for path in sorted((generation.folder / PARTS_FOLDER).glob("dataset_attributions_rank_*.pt")):
        newest = path.name.endswith(suffix) or (generation.number == 1 and "generation" not in path.name)
        if newest and path.name not in names:
            batches = show(read_ledger(path).ids)
            raise StorageError(
                f"{path} is a foreign part, with batches {batches}: this harvest has {generation.world_size} workers"
            )
