"""Ending a harvest that is settled with the batches that are committed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lit_attr.data.batch_ids import Ids, all_ids, from_ranges, union
from lit_attr.parts.freeze import settled_generation
from lit_attr.parts.generations import Generation, newest_generations
from lit_attr.parts.history import record_settled
from lit_attr.parts.ledger import read_ledger
from lit_attr.parts.looks import read_looks
from lit_attr.parts.plan import Plan


def committed_batches(generation: Generation) -> Ids:
    """The batches that are in parts that count, as these say.

    Raises:
        StorageError: If a part is damaged.
    """
    own = [read_ledger(generation.part_path(rank)).ids for rank in generation.ranks_with_parts()]
    return union([*(from_ranges(ranges) for _, ranges in generation.frozen), *own])


def first_batches(folder: Path, plan: Plan) -> int | None:
    """How many batches are committed, where they are the first ones, and the same of all target shards; else None.

    Args:
        folder: The harvest's folder.
        plan: Its plan.

    Raises:
        StorageError: If a part is damaged.
    """
    counts = set[int]()
    for generation in newest_generations(folder, plan):
        ids = all_ids(0) if generation is None else committed_batches(generation)
        if not np.array_equal(ids, all_ids(len(ids))):
            return None
        counts.add(len(ids))
    return counts.pop() if len(counts) == 1 else None


def end_settled(folder: Path, plan: Plan, digest: Callable[[int], str], stop_error: float) -> int | None:
    """End a harvest whose last look found it settled, unless it was continued since, or more is asked now.

    The look decides: whoever finds it written down ends the harvest, after a kill in between too. No worker goes on
    meanwhile.

    Args:
        folder: The harvest's folder.
        plan: Its plan.
        digest: Number of batches to the digest of the data of so many.
        stop_error: The relative error below which it is settled.

    Returns:
        Number of batches with which the harvest ended; None where it goes on.

    Raises:
        StorageError: If a file is damaged, or cannot be written.
    """
    looks = read_looks(folder)
    if not looks or not looks[-1].is_settled or looks[-1].error_asked > stop_error:
        return None
    n_batches = looks[-1].n_batches
    if first_batches(folder, plan) != n_batches:
        return None
    for generation in newest_generations(folder, plan):
        if generation is not None and not generation.is_settled:
            data_digest = digest(n_batches)
            record_settled(generation, n_batches, data_digest)
            settled_generation(generation, n_batches, data_digest)
    return n_batches
