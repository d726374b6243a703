"""When a harvest ends early: looks at what is committed, at a few times that are known beforehand.

The first look is after 64 batches of all processes, and each other one after twice as many as the one before. Intervals
hold what they are of in 95 % of cases at all looks together, since the share that may not is halved from look to look:
2.5 % at the first, 1.25 % at the second. The other way to end, a small relative error, tests nothing: when it comes is
decided by numbers of occurrences, not by which values happened to be large.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lit_attr.errors import ConfigurationError
from lit_attr.parts.ending import end_settled, first_batches
from lit_attr.parts.generations import newest_generations
from lit_attr.parts.header import Header
from lit_attr.parts.looks import Look, read_looks, record_look
from lit_attr.parts.plan import Plan
from lit_attr.parts.read_vectors import load_read_vectors
from lit_attr.parts.union import counting_shards
from lit_attr.query.settled import settled
from lit_attr.storage.interval import LEVEL
from lit_attr.storage.summed_blocks import SummedBlocks
from lit_attr.topology.words import StopWhen

_log = logging.getLogger(__name__)
# Batches before the first look: as many groups.
_FIRST = 64
# How many of the strongest sources of a target are to be told apart from the others, and of which share of the targets.
_K, _SHARE = 10, 0.95
_ERROR = 0.05


@dataclass(frozen=True)
class StopRule:
    """When a harvest is settled.

    Attributes:
        error: The median of standard error over magnitude below which it is, over the ten strongest sources of all
            targets; it is, too, once 95 % of the targets have such sources that are told apart from all others.
    """

    error: float

    @classmethod
    def of(cls, stop_when: StopWhen | None, stop_error: float | None, *, uncertainty: bool) -> "StopRule | None":
        """The rule that settings of a harvest ask for; None if they ask for none.

        Raises:
            ConfigurationError: If they make no sense.
        """
        if stop_when is None:
            if stop_error is not None:
                raise ConfigurationError(f"model.stop_error {stop_error} does nothing without model.stop_when settled")
            return None
        if stop_when != "settled":
            raise ConfigurationError(f"model.stop_when must be settled, or null, found {stop_when!r}")
        if not uncertainty:
            raise ConfigurationError("model.stop_when needs standard errors: drop it, or model.uncertainty false")
        if stop_error is not None and not 0 < stop_error < 1:
            raise ConfigurationError(f"model.stop_error must be above 0 and below 1, found {stop_error}")
        return cls(_ERROR if stop_error is None else stop_error)


class Looks:
    """Looks at a harvest on the first process of its trainer, once all processes have committed.

    Args:
        rule: When it is settled.
        folder: The harvest's folder.
        n_batches: Batches of the harvest, at which it ends in any case.

    Raises:
        StorageError: If the file of earlier looks is damaged.
    """

    def __init__(self, rule: StopRule, folder: Path, n_batches: int) -> None:
        self._rule, self._folder, self._n_batches = rule, folder, n_batches
        if Plan.load(folder).entries.get("order") != "random":
            _log.warning(
                "warning: model.stop_when settled, and rows in the order of the file: standard errors are those of the "
                "text seen so far, and the first batches no sample of the rest: data.order random has both"
            )
        self._number = 1
        for earlier in read_looks(folder)[-1:]:  # one that a kill has prevented is made now
            self._advance(earlier.n_batches)

    def _advance(self, n_done: int) -> None:
        while self._due_after <= n_done:
            self._number += 1

    @property
    def _due_after(self) -> int:
        return _FIRST << (self._number - 1)

    def due(self, n_done: int) -> bool:
        """Whether it is time for the next one.

        Args:
            n_done: Batches that all processes have done.
        """
        return self._due_after <= n_done < self._n_batches

    def look(self, digest: Callable[[int], str]) -> int | None:
        """Look, write down what is found, and end the harvest if it is settled.

        Args:
            digest: Number of batches to the digest of the data of so many.

        Returns:
            Number of batches with which the harvest ended; None where it goes on.

        Raises:
            NumericalError: If a sum is not finite, or too large.
            StorageError: If a part is damaged, or a file cannot be written.
        """
        folder, plan = self._folder, Plan.load(self._folder)
        level = 1 - (1 - LEVEL) / 2**self._number
        n_batches = first_batches(folder, plan)
        if n_batches is None:  # as after a restart of workers that had gone different ways
            _log.info(f"not looked whether {folder} is settled: other batches than the first ones are committed")
            self._number += 1
            return None
        header = Header.load(folder)
        shards = counting_shards(newest_generations(folder, plan), header, remedy=None)
        blocks = SummedBlocks(
            {str(part.path): part.sums for shard in shards for part in shard.parts},
            load_read_vectors(folder, header.topology, header.alive),
            header.w_unembed,
            header.ci_threshold,
            {},
            [str(part.path) for part in shards[0].parts],
        )
        found = settled(blocks, _K, level)
        look = Look(n_batches, level, _K, **vars(found), share_asked=_SHARE, error_asked=self._rule.error)
        record_look(folder, look)
        self._advance(n_batches)
        goes_on = "settled" if look.is_settled else f"going on, to look again after {self._due_after:,} batches"
        _log.info(f"{look}: {goes_on}")
        return end_settled(folder, plan, digest, self._rule.error)
