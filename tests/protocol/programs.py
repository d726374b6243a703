"""What the processes of a harvest do, with the package's own code."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from lit_attr.data.batch_ids import union
from lit_attr.harvest.commits import Commits
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.writer import StorageWriter
from lit_attr.parts.freeze import current_generation
from lit_attr.parts.header import Header
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.plan import Plan
from tests.protocol.files import ROOT
from tests.protocol.replay import Numbers, Program, note, take


class WrongCommitError(AssertionError):
    """A commit was written that should have been refused."""


def worker(rank: int, world_size: int, n_batches: int, *, pauses: bool = False, shard: int = 0) -> Program:
    """An independent worker, which commits after every batch, and may do a step of its own before that."""

    def run() -> None:
        _harvest([(rank, shard)], world_size, n_batches, pauses=pauses)

    return run


def trainer(world_size: int, n_batches: int) -> Program:
    """A trainer, whose processes keep step, and which writes the result at the end."""

    def run() -> None:
        commits, sums = _harvest([(rank, 0) for rank in range(world_size)], world_size, n_batches)
        writer = StorageWriter()
        writer._commits, writer._header = commits[0], Header.load(ROOT)
        reduced = Numbers(batch for one in sums for batch in one.batches)
        harvester = AttributionHarvester.__new__(AttributionHarvester)
        vars(harvester)["sums"] = reduced
        writer._write(harvester, union(one.done for one in commits), [])

    return run


def grid(world_size: int, n_shards: int, n_batches: int) -> Program:
    """A trainer whose processes are dealt out over target shards, and whose first unites what all have committed."""

    def run() -> None:
        _harvest(list(product(range(world_size), range(n_shards))), world_size, n_batches)
        merge_harvest(ROOT)

    return run


def merger(*, allow_partial: bool) -> Program:
    """Merging, while others may be at work."""

    def run() -> None:
        merge_harvest(ROOT, allow_partial=allow_partial)

    return run


def deleter(rank: int, generation: int = 1) -> Program:
    """A user who deletes a part."""
    suffix = f"_generation_{generation}" if generation > 1 else ""

    def run() -> None:
        (ROOT / "worker_states" / f"dataset_attributions_rank_{rank}{suffix}.pt").unlink(missing_ok=True)

    return run


def _harvest(
    places: Sequence[tuple[int, int]], world_size: int, n_batches: int, *, pauses: bool = False
) -> tuple[list[Commits], list[Numbers]]:
    """The steps of a `StorageWriter`, in its order, for some ranks and target shards that share a process."""
    shards = dict.fromkeys(shard for _, shard in places)
    plan = Plan.load(ROOT)
    generations = {shard: current_generation(ROOT, plan, world_size, n_batches, shard=shard) for shard in shards}
    commits = [Commits(generations[shard], rank, 1.0, 1) for rank, shard in places]
    remaining = [one.remaining.tolist() for one in commits]
    known = [_written(one) for one in commits]
    sums = [Numbers() for _ in places]
    for one, numbers in zip(commits, sums, strict=True):
        one.restore(numbers)
    for step in range(max(map(len, remaining), default=0)):
        for one, numbers, batches in zip(commits, sums, remaining, strict=True):
            if step < len(batches):
                numbers.batches.append(batches[step])
                one.add(batches[step])
        if pauses:
            take("compute")
        for place, (one, numbers) in enumerate(zip(commits, sums, strict=True)):
            known[place] = _commit(one, numbers, known[place])
    return commits, sums


def _commit(commits: Commits, numbers: Numbers, known: Any) -> Any:
    """Commit, and make sure that a worker that others had replaced before does not succeed; which file there is now."""
    is_new = bool(commits._new)
    newest, identity = note("newest generation", commits.generation.shard), _written(commits)
    commits.commit(numbers)
    if is_new and newest not in (None, commits.generation.number):
        raise WrongCommitError(f"a worker of generation {commits.generation.number} commits in generation {newest}")
    if is_new and identity not in (known, None):
        raise WrongCommitError(f"{commits.path.name} is replaced, though it is not what the worker knows")
    return _written(commits)


def _written(commits: Commits) -> Any:
    """Which file there is now in the place of a part, unlike `FileIdentity` without a step."""
    return note("part", commits.path.relative_to(ROOT).as_posix())
