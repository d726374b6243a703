"""Small harvests on disk, made without any model: every batch leaves its own mark in every sum."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lit_attr.data.batch_ids import Ids, from_ranges, to_ranges, union
from lit_attr.parts.counting import check_nothing_missing, counting_parts
from lit_attr.parts.freeze import current_generation
from lit_attr.parts.generations import Generation, begun_generation
from lit_attr.parts.header import Header
from lit_attr.parts.ledger import read_ledger
from lit_attr.parts.part import write_part
from lit_attr.parts.plan import Plan
from lit_attr.parts.read_vectors import publish_read_vectors
from lit_attr.topology.shards import deal
from lit_attr.topology.sums import Sums
from lit_attr.topology.tables import Table
from tests.storage.examples import ALIVE, READ, TOPOLOGY, unembedding
from tests.sums import full_sums, layout_of

# Marks are powers of two, with factors up to 4: sums of so many batches are exact in float32.
MAX_BATCHES = 20
PLAN = Plan({"weights": "w", "batch_size": 4}, n_batches=10)


def sums_of(batches: Iterable[int]) -> Sums:
    """What these batches add up to."""
    sums = full_sums(TOPOLOGY, torch.float64)
    for batch in batches:
        for place, (_, tensor) in enumerate(sums.named()):
            if tensor.is_floating_point():
                factors = torch.arange(tensor.numel(), dtype=torch.float64).add(place).remainder(4).add(1)
                tensor += factors.reshape(tensor.shape) * 2.0**-batch
        sums.token_count[batch % TOPOLOGY.vocab_size] += 2**batch
        for count in (sums.n_tokens, sums.n_abs_tokens):
            count.add_(2**batch)
    return sums


def of_shard(sums: Sums, generation: Generation) -> Sums:
    """What the workers of a generation have of some sums."""
    layout = deal(sums.layout, generation.plan.target_shards)[generation.shard]
    attr_abs = {
        target: {
            source: Table.around(table.live, table.numbers[:, ids].contiguous()) for source, table in tables.items()
        }
        for target, ids in layout.targets.items()
        for tables in [sums.attr_abs[target]]
    }
    return replace(sums, layout=layout, attr={name: sums.attr[name] for name in layout.inputs}, attr_abs=attr_abs)


def header() -> Header:
    return Header(TOPOLOGY, ALIVE, unembedding(), 0.25, {"weights_digest": "w"})


def begin(folder: Path, world_size: int, n_batches: int = 10, plan: Plan = PLAN, shard: int = 0) -> Generation:
    """Begin a harvest, or go on with it, as so many workers do."""
    if not (folder / "plan.json").exists():
        plan.publish(folder)
        header().publish(folder)
        publish_read_vectors(folder, READ.vectors)
    return current_generation(folder, plan, world_size, n_batches, shard=shard)


def commit(generation: Generation, rank: int, batches: Iterable[int] | None = None, /, **changes) -> Path:
    """Publish a worker's part; without batches, all that it was assigned."""
    ids = np.array(sorted(generation.assigned(rank) if batches is None else batches), dtype=np.int64)
    sums = of_shard(sums_of(ids.tolist()), generation)
    now = time.time()
    known = {
        "batches": to_ranges(ids),
        "n_tokens": int(sums.n_tokens),
        "started": now - 10,
        "committed": now,
    }
    write_part(generation.part_path(rank), sums, replace(generation.blank_ledger(rank), **{**known, **changes}))
    return generation.part_path(rank)


def frozen_ids(generation: Generation) -> Ids:
    """Batches in the frozen parts of a generation, as its file names them."""
    return union(from_ranges(ranges) for _, ranges in generation.frozen)


def committed(generation: Generation, rank: int) -> list[int]:
    """Batches in a worker's part."""
    path = generation.part_path(rank)
    return read_ledger(path).ids.tolist() if path.exists() else []


def complete_harvest(folder: Path, world_size: int = 3, n_batches: int = 10) -> Generation:
    generation = begin(folder, world_size, n_batches)
    for rank in range(world_size):
        commit(generation, rank)
    return generation


def assert_holds(folder: Path, batches: Iterable[int], allow_partial: bool = False) -> None:
    """The harvest has each of the batches once, by its ledgers and by its numbers."""
    expected = sorted(batches)
    generation = begun_generation(folder)
    parts = list(counting_parts(generation, layout_of(TOPOLOGY)))
    ids = union(part.ids for part in parts)
    if not allow_partial:
        check_nothing_missing(generation, ids, "")
    assert ids.tolist() == expected
    total = full_sums(TOPOLOGY, torch.float64)
    for part in parts:
        total.add_(part.sums)
    for (name, found), (_, right) in zip(total.named(), sums_of(expected).named(), strict=True):
        assert torch.equal(found, right), name
