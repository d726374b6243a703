"""What one process of a harvest has done, committed from time to time."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from lit_attr.data.batch_ids import Ids, to_ranges, union, without
from lit_attr.errors import StorageError
from lit_attr.files.identity import FileIdentity
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.parts.generations import Generation, newest_generation
from lit_attr.parts.ledger import Ledger, read_ledger
from lit_attr.parts.part import read_part, write_part
from lit_attr.parts.software import Software, distinct, software

# A commit is due only after so many times the seconds that the last one took: at most 2 % of the time.
_COMMIT_SHARE = 50


class Commits:
    """The part of one process.

    Args:
        generation: Which batches are this process', and where its part is.
        rank: The rank of the process.
        minutes: Time between commits, at least.
        batches: Batches between commits, instead; None to go by time.
        by: The versions of what computes; None for those of `software()`.
    """

    def __init__(
        self, generation: Generation, rank: int, minutes: float, batches: int | None, by: Software | None = None
    ) -> None:
        self.generation = generation
        self.rank = rank
        self.path: Path = generation.part_path(rank)
        self._seconds = minutes * 60
        self._batches = batches
        self._part_there = FileIdentity.of(self.path)
        known = self._read_ledger()
        self._done = known.ids
        # The versions that have added to the sums.
        self.software: list[Software] = list(known.software)
        self._by = software() if by is None else by
        self._new: list[int] = []
        self._n_before = len(self._done)
        self._started = time.time()
        self._last = time.monotonic()
        self._cost = 0.0

    def _read_ledger(self) -> Ledger:
        generation = self.generation
        if self._part_there is None:
            return generation.blank_ledger(self.rank)
        # The part is compared with its seal when its sums are needed; until then its ledger is believed.
        ledger = read_ledger(self.path)
        generation.check_ledger(self.path, self.rank, ledger)
        return ledger

    @property
    def remaining(self) -> Ids:
        """Batches of this process that are not in its part."""
        return without(self.generation.assigned(self.rank), self._done)

    @property
    def done(self) -> Ids:
        """Batches in the sums."""
        return union([self._done, np.array(self._new, dtype=np.int64)])

    def restore(self, sums: AttributionSums) -> None:
        """Begin with what the part holds.

        Args:
            sums: Allocated, and zero.

        Raises:
            StorageError: If it is damaged, or another worker has written one meanwhile.
        """
        if self._part_there is not None:
            part, ledger = read_part(self.path, sums.totals.layout)
            if not np.array_equal(ledger.ids, self._done):  # batches are dealt out by what it held then
                raise self._changed_by_another()
            sums.add(part)

    def add(self, batch_id: int) -> None:
        """Note that a batch is in the sums."""
        if not self._new:
            self.software = [*distinct([*self.software, self._by])]
        self._new.append(batch_id)

    def due(self) -> bool:
        """Whether it is time to commit."""
        if self._batches is not None:
            return len(self._new) >= self._batches
        return time.monotonic() - self._last > max(self._seconds, _COMMIT_SHARE * self._cost)

    def commit(self, sums: AttributionSums) -> None:
        """Publish the part, unless nothing is new.

        Raises:
            StorageError: If it cannot be written, or another worker has written one meanwhile.
        """
        if not self._new:
            return
        sums.flush()
        generation = self.generation
        newest = newest_generation(generation.folder, generation.plan, generation.shard)
        if newest is None or newest.number != generation.number:
            raise StorageError(
                f"{generation.place}: a restart with another number of workers, or with more batches, has taken over "
                f"from worker {self.rank} of {generation.world_size}{generation.of_shard}. Nothing was written"
            )
        if FileIdentity.of(self.path) not in (self._part_there, None):  # a part that is gone is written anew, whole
            raise self._changed_by_another()
        done = self.done
        ledger = replace(
            generation.blank_ledger(self.rank),
            batches=to_ranges(done),
            n_tokens=int(sums.totals.n_tokens),
            started=self._started,
            committed=time.time(),
            n_before=self._n_before,
            software=self.software,
        )
        write_part(self.path, sums.totals, ledger)
        self._part_there = FileIdentity.of(self.path)
        self._done, self._new = done, []

    def rest(self, seconds: float) -> None:
        """Begin to wait for the next commit.

        Args:
            seconds: That the last one took, on the slowest process.
        """
        self._last = time.monotonic()
        self._cost = seconds

    def _changed_by_another(self) -> StorageError:
        return StorageError(
            f"{self.path} was changed by another process: is a second worker of rank {self.rank}"
            f"{self.generation.of_shard} running? Nothing was written"
        )
