"""The strongest edges, as far as a result holds them, and what it does not hold.

A result that keeps the strongest edges alone has dropped the others. What it answers is always the beginning of the
true list: where edges that were dropped may stand between two that were kept, it ends before them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class NotHeld:
    """What a result has dropped from the lists that answer a question.

    Attributes:
        n: Number of edges, those of layers that were not asked for included. None of them is zero.
        mass: Sum of their magnitudes, in the measure that was asked for.
    """

    n: int
    mass: float

    def __str__(self) -> str:
        """What stands below a table."""
        what = "edge is" if self.n == 1 else "edges are"
        return f"weaker ones were not kept: {self.n:,} {what} not held, with magnitudes of {self.mass:.4g} together"


@dataclass(frozen=True)
class Found(Generic[Item]):
    """The strongest of some edges.

    Attributes:
        entries: Best first.
        bound: No edge that is missing has a larger magnitude; 0 where all that were asked for are there.
        not_held: What may be missing; None where all that were asked for are there.
    """

    entries: list[Item] = field(default_factory=list)
    bound: float = 0.0
    not_held: NotHeld | None = None


def strongest_of(lists: Iterable[Found[Item]], k: int, value: Callable[[Item], float]) -> Found[Item]:
    """The strongest of several lists, best first, as far as they are known.

    Args:
        lists: At least the `k` strongest of each, or as many as are held.
        k: How many.
        value: The number whose magnitude ranks.
    """
    lists = list(lists)
    candidates: list[tuple[float, Item | None]] = []
    for found in lists:
        candidates += [(abs(value(entry)), entry) for entry in found.entries]
        if found.not_held is not None:  # where what is missing may begin, behind what is as large
            candidates.append((found.bound, None))
    entries: list[Item] = []
    for magnitude, entry in sorted(candidates, key=lambda candidate: -candidate[0]):
        if len(entries) == k:
            break
        if entry is None:
            return Found(entries, magnitude, added(found.not_held for found in lists))
        entries.append(entry)
    return Found(entries)


def added(parts: Iterable[NotHeld | None]) -> NotHeld | None:
    """What several lists do not hold, together; None where all of them are complete."""
    known = [part for part in parts if part is not None]
    return NotHeld(sum(part.n for part in known), sum(part.mass for part in known)) if known else None
