"""Sets of batch ids: sorted arrays in memory, ranges in files."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

Ids = Int[np.ndarray, " batch"]
_SHOWN = 8


def all_ids(n_batches: int) -> Ids:
    """The ids of all batches: 0, 1, 2..."""
    return np.arange(n_batches, dtype=np.int64)


def union(parts: Iterable[Ids]) -> Ids:
    """The ids that are in any of several sets."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))


def without(ids: Ids, taken: Ids) -> Ids:
    """The ids that are not taken."""
    return np.setdiff1d(ids, taken, assume_unique=True)


def to_ranges(ids: Ids) -> list[list[int]]:
    """Sorted ids as ranges [first, last, step].

    Example:
        >>> to_ranges(np.array([0, 1, 2, 5, 8, 11, 20]))
        [[0, 2, 1], [5, 11, 3], [20, 20, 1]]
    """
    ranges: list[list[int]] = []
    steps = np.diff(ids)
    changes = np.flatnonzero(np.diff(steps)) + 1
    start = 0
    while start < len(ids):
        if start == len(ids) - 1:
            ranges.append([int(ids[start])] * 2 + [1])
            break
        at = np.searchsorted(changes, start + 1)
        end = int(changes[at]) if at < len(changes) else len(ids) - 1
        ranges.append([int(ids[start]), int(ids[end]), int(steps[start])])
        start = end + 1
    return ranges


def from_ranges(ranges: Sequence[Sequence[int]]) -> Ids:
    """The ids that ranges [first, last, step] stand for: the inverse of `to_ranges`."""
    return union(np.arange(first, last + 1, step, dtype=np.int64) for first, last, step in ranges)


def show(ids: Ids) -> str:
    """The number of ids, and a few of them, for messages.

    Example:
        >>> show(np.array([3, 4, 5, 9]))
        '4 (3-5, 9)'
    """
    shown = []
    for first, last, step in to_ranges(ids)[:_SHOWN]:
        every = f" step {step}" if step > 1 else ""
        shown.append(str(first) if first == last else f"{first}-{last}{every}")
    more = ", ..." if len(to_ranges(ids)) > _SHOWN else ""
    return f"{len(ids)} ({', '.join(shown)}{more})"
