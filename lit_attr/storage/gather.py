"""All parts of a harvest that count, checked one by one and against each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_attr.errors import StorageError
from lit_attr.storage.generations import PARTS_FOLDER, Generation, newest_generation
from lit_attr.storage.ids import Ids, all_ids, from_ranges, show, to_ranges, union, without
from lit_attr.storage.parts import Ledger, read_part
from lit_attr.storage.plan import Plan
from lit_attr.storage.sums import Sums
from lit_attr.topology.graph import Topology


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
    for path, rank, expected in _counting(generation):
        if rank is not None and not path.exists():
            continue  # reported as missing batches
        part, ledger = read_part(path, topology)
        _check(generation, path, rank, expected, ledger)
        for other, ids in seen.items():
            if len(twice := without(ids, without(ids, ledger.ids))):
                raise StorageError(f"{path.name} and {other} in {path.parent} hold the same batches: {show(twice)}")
        seen[path.name] = ledger.ids
        sums.append(part)
    found = Gathered(sums, union(seen.values()), generation.n_batches)
    if len(found.missing) and not allow_partial:
        absent = [generation.part(rank).name for rank in range(generation.world_size)]
        absent = [name for name in absent if name not in seen]
        files = f"; no file {', '.join(absent)}" if absent else ""
        raise StorageError(
            f"{folder}: of {found.n_batches} batches {show(found.missing)} are missing{files}. Let the workers finish, "
            "or write a partial result with --allow_partial"
        )
    return found


def _counting(generation: Generation) -> Iterator[tuple[Path, int | None, list[list[int]] | None]]:
    """Files that count, with the rank of those of the newest generation, or the frozen batches."""
    parts = generation.folder / PARTS_FOLDER
    for name, ranges in generation.frozen:
        yield parts / name, None, ranges
    for rank in range(generation.world_size):
        yield generation.part(rank), rank, None


def _check(
    generation: Generation, path: Path, rank: int | None, frozen: list[list[int]] | None, ledger: Ledger
) -> None:
    if rank is not None:
        generation.check_ledger(path, rank, ledger)
    elif ledger.plan != generation.plan.digest or ledger.batches != frozen:
        expected = show(from_ranges(frozen or []))
        raise StorageError(f"{path} is a foreign part: expected batches {expected}, found {show(ledger.ids)}")


def _refuse_foreign_names(generation: Generation) -> None:
    """Files that look like parts of the newest generation and are none of its workers'."""
    names = {generation.part(rank).name for rank in range(generation.world_size)}
    suffix = f"_generation_{generation.number}.pt"
    for path in sorted((generation.folder / PARTS_FOLDER).glob("dataset_attributions_rank_*.pt")):
        newest = path.name.endswith(suffix) or (generation.number == 1 and "generation" not in path.name)
        if newest and path.name not in names:
            raise StorageError(f"{path} is a foreign part: this harvest has {generation.world_size} workers")
