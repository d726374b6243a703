"""How far a running harvest is, read from what its workers have committed."""

import os
from dataclasses import dataclass
from pathlib import Path

from lit_attr.errors import StorageError, reason
from lit_attr.files.json_file import read_object
from lit_attr.files.publish import reading
from lit_attr.parts.generations import Generation, begun_generations
from lit_attr.parts.ledger import Ledger, read_ledger
from lit_attr.parts.looks import Look, read_looks
from lit_attr.parts.worker_record import WorkerRecord
from lit_attr.storage.provenance import Provenance
from lit_attr.storage.result_folders import result_in


@dataclass(frozen=True)
class WorkerStatus:
    """One worker of the newest generation.

    Attributes:
        rank: Rank of the worker.
        n_batches: Batches that it is to do.
        ledger: The ledger of its part; None if it has not committed anything.
        began: When the generation began, in seconds since the epoch.
        record: What the worker says of itself; None if it has not begun, or is one of the version before.
        shard: Its target shard.
    """

    rank: int
    n_batches: int
    ledger: Ledger | None
    began: float
    record: WorkerRecord | None = None
    shard: int = 0

    @property
    def n_done(self) -> int:
        """Batches that it has committed."""
        return 0 if self.ledger is None else self.ledger.n_batches

    @property
    def batches_per_second(self) -> float:
        """Its speed since it began, up to its last commit."""
        if self.ledger is None:
            return 0.0
        return (self.n_done - self.ledger.n_before) / max(self.ledger.committed - self.ledger.started, 1e-9)

    @property
    def has_ended_early(self) -> bool:
        """Whether it has failed, or was stopped before it was done, and has committed nothing since."""
        if self.record is None or self.record.ended is None or self.record.state == "done":
            return False
        if self.ledger is not None and self.ledger.committed > self.record.ended:
            return False
        return self.record.state == "failed" or self.n_done < self.n_batches

    def silent_for(self, now: float) -> float:
        """Seconds since its last commit, or since it was started; 0 where it is done.

        Args:
            now: The time, in seconds since the epoch.
        """
        if self.n_done == self.n_batches:
            return 0.0
        committed = [] if self.ledger is None else [self.ledger.committed]
        started = [] if self.record is None else [self.record.started]
        return now - max([*committed, *started], default=self.began)


@dataclass(frozen=True)
class ShardStatus:
    """One target shard of a harvest, or all of it where targets are not dealt out.

    Attributes:
        number: The number of the shard, from 0.
        n_batches: Batches of its newest generation; 0 before the first.
        n_frozen: Batches in parts of earlier generations.
        workers: The workers of the newest generation.
    """

    number: int
    n_batches: int
    n_frozen: int
    workers: list[WorkerStatus]

    @property
    def n_done(self) -> int:
        """Batches that are committed."""
        return self.n_frozen + sum(worker.n_done for worker in self.workers)


@dataclass(frozen=True)
class HarvestStatus:
    """A harvest as its files show it.

    Attributes:
        folder: The harvest's folder.
        shards: Its target shards; one where targets are not dealt out.
        n_merged: Batches that the harvest had when it was merged; None if it was not.
        last_look: How far it was settled when that was last looked at; None where it may not end early, or before.
        is_settled: Whether it has ended because of that.
    """

    folder: Path
    shards: list[ShardStatus]
    n_merged: int | None
    last_look: Look | None = None
    is_settled: bool = False

    @property
    def n_batches(self) -> int:
        """Batches of the harvest."""
        return max(shard.n_batches for shard in self.shards)

    @property
    def n_frozen(self) -> int:
        """Batches in parts of earlier generations, as `n_done`."""
        return min(shard.n_frozen for shard in self.shards)

    @property
    def n_done(self) -> int:
        """Batches that are committed: no more than this are done in all shards."""
        return min(shard.n_done for shard in self.shards)

    @property
    def workers(self) -> list[WorkerStatus]:
        """The workers of all shards' newest generations."""
        return [worker for shard in self.shards for worker in shard.workers]

    @property
    def is_done(self) -> bool:
        """Whether every shard has committed all batches."""
        return self.n_done == self.n_batches

    @property
    def tokens_per_batch(self) -> float:
        """Tokens of a batch, on average; 0 before the first commit."""
        ledgers = [worker.ledger for worker in self.workers if worker.ledger is not None]
        n_batches = sum(ledger.n_batches for ledger in ledgers)
        return sum(ledger.n_tokens for ledger in ledgers) / n_batches if n_batches else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Speed of all workers together that are not done; a token counts in every shard that goes through it."""
        working = (w for w in self.workers if w.n_done < w.n_batches)
        return self.tokens_per_batch * sum(worker.batches_per_second for worker in working)

    @property
    def seconds_left(self) -> float:
        """Time until the slowest worker is done, at its own pace; infinite if that is not known."""
        if any(shard.n_batches < self.n_batches for shard in self.shards):
            return float("inf")
        left = [(w.n_batches - w.n_done, w.batches_per_second) for w in self.workers]
        return max((n / rate if rate > 0 else float("inf") for n, rate in left if n), default=0.0)


def status(folder: Path) -> HarvestStatus:
    """Read the state of a harvest.

    Raises:
        StorageError: If the folder holds none, or a file is damaged.
    """
    newest = begun_generations(folder)
    shards = [ShardStatus(number, 0, 0, []) if one is None else _shard(one) for number, one in enumerate(newest)]
    result = result_in(folder)
    look = next(reversed(read_looks(folder)), None)
    is_settled = all(one is not None and one.is_settled for one in newest)
    return HarvestStatus(folder, shards, None if result is None else _n_merged(result), look, is_settled)


def _shard(generation: Generation) -> ShardStatus:
    began = os.path.getmtime(generation.path)
    ledgers = {rank: read_ledger(generation.part_path(rank)) for rank in generation.ranks_with_parts()}
    records = {
        rank: read_object(generation.record_path(rank), WorkerRecord) for rank in generation.ranks_with_records()
    }
    workers = [
        WorkerStatus(rank, generation.n_assigned(rank), ledgers.get(rank), began, records.get(rank), generation.shard)
        for rank in range(generation.world_size)
    ]
    return ShardStatus(generation.shard, generation.n_batches, generation.n_frozen, workers)


def _n_merged(path: Path) -> int:
    from lit_attr.files.archive import layout  # these import torch, for longer than all else here takes
    from lit_attr.storage.strongest_file import StrongestFile, is_strongest

    with reading(path) as file:
        try:
            found = StrongestFile(path).content_keys() if is_strongest(path) else layout(file)
            coverage = Provenance.from_mapping(found["provenance"]).coverage
        except Exception as error:  # torch raises many kinds for a damaged file
            raise StorageError(f"{path} is damaged, or no result of this harvest: {reason(error)}") from error
    if coverage is None:
        raise StorageError(f"{path} is no result of this harvest: it does not record its coverage")
    return coverage.n_batches
