"""Which of its batches a result covers: one entry of its provenance, written and read here alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lit_attr.data.batch_ids import Ids, all_ids, from_ranges, show, to_ranges, union, without
from lit_attr.errors import StorageError

_EXPECTED = "expected complete, n_batches, and batches as [first, last, step]"


@dataclass(frozen=True)
class Coverage:
    """Which batches are in a result.

    Attributes:
        n_batches: Batches that a complete result has.
        batches: Ids of the batches that it has, as ranges [first, last, step].
        complete: Whether these are all.
    """

    n_batches: int
    batches: Sequence[tuple[int, int, int]]
    complete: bool

    @classmethod
    def of(cls, ids: Ids, n_batches: int) -> "Coverage":
        """The coverage of a result with these batches, of so many."""
        ranges = [(first, last, step) for first, last, step in to_ranges(ids)]
        return cls(n_batches, ranges, complete=len(ids) == n_batches)

    @classmethod
    def from_mapping(cls, entry: Any) -> "Coverage":  # noqa: ANN401 - whatever someone wrote
        """Read a provenance's entry.

        Raises:
            StorageError: If it is not as `lit_attr` writes it.
        """
        try:
            ranges = [(int(first), int(last), int(step)) for first, last, step in entry["batches"]]
            coverage = cls(int(entry["n_batches"]), ranges, complete=bool(entry["complete"]))
            _ = coverage.n_covered
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StorageError(f"the provenance's coverage is damaged: {_EXPECTED}, found {entry!r}") from error
        return coverage

    def to_mapping(self) -> dict[str, Any]:
        """The provenance's entry, in plain types."""
        batches = [list(batches) for batches in self.batches]
        return {"n_batches": self.n_batches, "batches": batches, "complete": self.complete}

    @property
    def n_covered(self) -> int:
        """How many batches are listed; counted without writing them out."""
        return sum(len(range(first, last + 1, step)) for first, last, step in self.batches)

    @property
    def partial(self) -> str | None:
        """How much a partial result covers, such as `5 of 9 batches`; None for a complete one."""
        return None if self.complete else f"{self.n_covered} of {self.n_batches} batches"

    def missing(self) -> Ids:
        """The ids that are not listed, after a check that the list makes sense.

        Raises:
            StorageError: If batches are listed twice, or are none of the harvest's, or `complete` is wrong.
        """
        listed = [from_ranges([batches]) for batches in self.batches]
        covered = union(listed)
        if sum(map(len, listed)) != len(covered):
            raise StorageError("its coverage lists batches twice")
        if len(foreign := without(covered, all_ids(self.n_batches))):
            raise StorageError(f"of {self.n_batches} batches, its coverage lists others: {show(foreign)}")
        missing = without(all_ids(self.n_batches), covered)
        if bool(len(missing)) == self.complete:
            raise StorageError(f"complete is {self.complete}, but batches {show(missing)} are missing")
        return missing

    @classmethod
    def joined(cls, parts: Iterable["Coverage"]) -> "Coverage":
        """The coverage of several results that were added; their batches are numbered one result after another."""
        total = cls(0, [], complete=True)
        for part in parts:
            moved = [(first + total.n_batches, last + total.n_batches, step) for first, last, step in part.batches]
            total = replace(
                total,
                n_batches=total.n_batches + part.n_batches,
                batches=[*total.batches, *moved],
                complete=total.complete and part.complete,
            )
        return total
