"""Sets of batch ids: sorted arrays in memory, ranges in files."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

Ids = Int[np.ndarray, " batch"]
# Ids as [first, last, step], the last one included, as files hold them; see `check_ranges`.
Ranges = list[tuple[int, int, int]]
# More than any harvest has: at 16,000 tokens each, 1.6 trillion. A damaged number must not take all memory.
MAX_BATCHES = 10**8
_SHOWN = 8
# The golden ratio less 1, times 2^64: batch ids times it, modulo 2^64, are places on a circle.
_TWO_64 = 1 << 64
_GOLDEN_RATIO = 0x9E3779B97F4A7C15


def all_ids(n_batches: int) -> Ids:
    """The ids of all batches: 0, 1, 2..."""
    return np.arange(n_batches, dtype=np.int64)


def is_in_share(batch_id: int, share: float) -> bool:
    """Whether a batch belongs to a share of all batches; a pure function, so that every worker agrees.

    Multiples of the golden ratio, less their whole parts, are spread more evenly than random numbers, and no period of
    the data is in step with them. Batch 0 belongs to every share; of any n batches in a row share * n do, and at most a
    few more or less.

    Args:
        batch_id: Global id of the batch.
        share: Between 0 and 1; 1 for all batches.
    """
    return (batch_id * _GOLDEN_RATIO) % _TWO_64 < share * _TWO_64


def union(parts: Iterable[Ids]) -> Ids:
    """The ids that are in any of several sets."""
    ids = np.concatenate([np.empty(0, np.int64), *parts])
    ids.sort(kind="stable")  # sorted stretches are merged; np.unique would hash each id, for ten times as long
    is_new = np.ones(len(ids), dtype=bool)
    is_new[1:] = ids[1:] != ids[:-1]
    return ids[is_new]


def without(ids: Ids, taken: Ids) -> Ids:
    """The ids that are not taken."""
    return np.setdiff1d(ids, taken, assume_unique=True)


def to_ranges(ids: Ids) -> Ranges:
    """Sorted ids as ranges (first, last, step).

    Example:
        >>> to_ranges(np.array([0, 1, 2, 5, 8, 11, 20]))
        [(0, 2, 1), (5, 11, 3), (20, 20, 1)]
    """
    ranges: list[tuple[int, int, int]] = []
    steps = np.diff(ids)
    changes = np.flatnonzero(steps[1:] != steps[:-1]) + 1
    start = 0
    while start < len(ids):
        if start == len(ids) - 1:
            ranges.append((int(ids[start]), int(ids[start]), 1))
            break
        at = np.searchsorted(changes, start + 1)
        end = int(changes[at]) if at < len(changes) else len(ids) - 1
        ranges.append((int(ids[start]), int(ids[end]), int(steps[start])))
        start = end + 1
    return ranges


def from_ranges(ranges: Ranges) -> Ids:
    """The ids that ranges (first, last, step) stand for: the inverse of `to_ranges`."""
    stretches = [np.arange(first, last + 1, step, dtype=np.int64) for first, last, step in ranges]
    return np.concatenate([np.empty(0, np.int64), *stretches])


def count(ranges: Ranges) -> int:
    """How many ids ranges stand for; they are not written out."""
    return sum(len(range(first, last + 1, step)) for first, last, step in ranges)


def check_ranges(ranges: Ranges, n_batches: int = MAX_BATCHES) -> Ranges:
    """Check that ranges are as `to_ranges` makes them: in order, none empty, none touching another.

    Args:
        ranges: From a file.
        n_batches: Ids are below it.

    Returns:
        The ranges.

    Raises:
        ValueError: If they are not.
    """
    before = -1
    for first, last, step in ranges:
        if not (before < first <= last < n_batches and step >= 1 and (last - first) % step == 0):
            expected = f"[first, last, step] of batches {before + 1} to {n_batches - 1}"
            raise ValueError(f"expected {expected}, found {[first, last, step]}")
        before = last
    return ranges


def show(ids: Ids) -> str:
    """The number of ids, and a few of them, for messages.

    Example:
        >>> show(np.array([3, 4, 5, 9]))
        '4 (3-5, 9)'
    """
    shown, ranges = [], to_ranges(ids)
    for first, last, step in ranges[:_SHOWN]:
        every = f" step {step}" if step > 1 else ""
        shown.append(str(first) if first == last else f"{first}-{last}{every}")
    more = ", ..." if len(ranges) > _SHOWN else ""
    return f"{len(ids)} ({', '.join(shown)}{more})"
