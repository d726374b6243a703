"""Which parts of a harvest count: decided here alone, for merging, for the last write of a run, and for plots."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_attr.data.batch_ids import Ids, all_ids, from_ranges, show, without
from lit_attr.errors import StorageError, few
from lit_attr.parts.generations import Generation
from lit_attr.parts.ledger import Ledger, read_ledger
from lit_attr.parts.part import read_part
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import PARTS_FOLDER


@dataclass(frozen=True)
class CountingPart:
    """A part that counts.

    Attributes:
        path: Its file.
        sums: Its sums, memory-mapped.
        ledger: What it says of itself.
        ids: The batches in it.
    """

    path: Path
    sums: Sums
    ledger: Ledger
    ids: Ids


def counting_parts(generation: Generation, layout: Layout, *, only_frozen: bool = False) -> Iterator[CountingPart]:
    """Open the parts that count, one by one: the frozen ones, then those of the generation's workers.

    Every part is compared with its seal, with the harvest's plan, with the batches that it should hold, and with the
    parts before it. A file that is not there is passed over: its batches are missing.

    Args:
        generation: The newest of the harvest.
        layout: The sums that they hold.
        only_frozen: Leave out the parts of the generation's own workers.

    Raises:
        StorageError: If a part is damaged, foreign, or holds batches that another holds too; it names the file and the
            batches.
    """
    _refuse_foreign_names(generation)
    taken = np.zeros(generation.n_batches, dtype=bool)
    seen: dict[str, Ids] = {}
    for path, rank, batches in _expected(generation, only_frozen=only_frozen):
        if not path.exists():
            continue
        part = _open(generation, path, rank, batches, layout)
        if taken[part.ids].any():
            other, twice = next((n, both) for n, ids in seen.items() if len(both := np.intersect1d(ids, part.ids)))
            raise StorageError(f"{path.name} and {other} in {path.parent} hold the same batches: {show(twice)}")
        taken[part.ids] = True
        seen[path.name] = part.ids
        yield part


def check_nothing_missing(generation: Generation, ids: Ids, remedy: str) -> None:
    """Check that all batches of a harvest are there.

    Args:
        generation: The newest of the harvest.
        ids: The batches that are there.
        remedy: What the user can do, a sentence.

    Raises:
        StorageError: If batches are missing; it names them, and the files that are not there.
    """
    missing = without(all_ids(generation.n_batches), ids)
    if not len(missing):
        return
    absent = [path.name for path, _, batches in _expected(generation) if len(batches) and not path.exists()]
    files = f"; no file {few(absent)}" if absent else ""
    raise StorageError(
        f"{generation.place}: of {generation.n_batches} batches {show(missing)} are missing{files}. {remedy}"
    )


def _expected(generation: Generation, *, only_frozen: bool = False) -> Iterator[tuple[Path, int | None, Ids]]:
    """Files that count: frozen ones with their batches, then the newest generation's, with ranks and assignments."""
    for name, ranges in generation.frozen:
        yield generation.place / PARTS_FOLDER / name, None, from_ranges(ranges)
    for rank in range(0 if only_frozen else generation.world_size):
        yield generation.part_path(rank), rank, generation.assigned(rank)


def _open(generation: Generation, path: Path, rank: int | None, batches: Ids, layout: Layout) -> CountingPart:
    try:
        sums, ledger = read_part(path, layout)
        if rank is not None:
            generation.check_ledger(path, rank, ledger)
        elif (ledger.plan, ledger.target_shard) != (generation.plan.digest, generation.shard) or not np.array_equal(
            ledger.ids, batches
        ):
            raise StorageError(f"{path} is a foreign part: it holds batches {show(ledger.ids)}")
    except StorageError as error:
        raise StorageError(f"{error}. Expected there are batches {show(batches)}") from error
    return CountingPart(path, sums, ledger, ledger.ids)


def _refuse_foreign_names(generation: Generation) -> None:
    """Files that look like parts of the newest generation and are none of its workers'."""
    names = {generation.part_path(rank).name for rank in range(generation.world_size)}
    suffix = f"_generation_{generation.number}.pt"
    for path in sorted((generation.place / PARTS_FOLDER).glob("dataset_attributions_rank_*.pt")):
        newest = path.name.endswith(suffix) or (generation.number == 1 and "generation" not in path.name)
        if newest and path.name not in names:
            batches = show(read_ledger(path).ids)
            raise StorageError(
                f"{path} is a foreign part, with batches {batches}: this harvest has {generation.world_size} workers"
            )
