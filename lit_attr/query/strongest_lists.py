"""Asking a file that holds the strongest edges alone: as an index, and beyond the index for single edges.

What it does not hold is nowhere else: it is said, and never taken for zero.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_attr.errors import StorageError
from lit_attr.query.found import NotHeld
from lit_attr.query.index import Index, IndexedList
from lit_attr.query.index_lists import PAIRS, KeyLists, number_in_key
from lit_attr.storage.strongest_file import StrongestFile
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import SIGNS, AttrMetric, Sign


class HeldEdge(NamedTuple):
    """An edge as lists have it.

    Attributes:
        raw: Raw attribution.
        error: Stored standard error; not a number where the lists have none.
    """

    raw: float
    error: float


_ZERO = HeldEdge(0.0, math.nan)
_NOTHING = IndexedList(np.empty(0, np.int64), np.empty(0, np.float32), complete=True)


class StrongestLists(Index):
    """The lists of a file that holds the strongest edges alone.

    Args:
        path: Path of the file.

    Raises:
        StorageError: If it is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._lists = StrongestFile(path)
        super().__init__(self._lists)

    @property
    def k(self) -> int:
        """Entries of a list at most."""
        return self._lists.k

    def neighbours(self, lists: KeyLists, key: int, measure: Measure, sign: Sign) -> IndexedList:
        """The strongest neighbours of a key, of one kind; arguments as of an index.

        Raises:
            StorageError: If the file is damaged.
        """
        return self._list(lists.name, key, number_in_key(measure, sign), len(lists.edges.neighbours))

    def edges(self, pair: tuple[str, str], measure: Measure, sign: Sign, n_edges: int) -> IndexedList:
        """The strongest edges between two layers; arguments and errors as of `neighbours`, and of an index."""
        known = super().edges(pair, measure, sign, n_edges)
        if known is None:
            raise StorageError(f"{self._lists.path} is damaged: it has no edges from {pair[0]} to {pair[1]}")
        return known

    def mass(self, pair: tuple[str, str], measure: Measure) -> float:
        """Sum of the absolute values of all edges between two layers, those that are not held included.

        Raises:
            StorageError: If the file is damaged.
        """
        known = super().mass(pair, measure)
        if known is None:
            raise StorageError(f"{self._lists.path} is damaged: it has no mass from {pair[0]} to {pair[1]}")
        return known

    def edge(self, lists: KeyLists, key: int, other: ComponentKey, metric: AttrMetric) -> HeldEdge | None:
        """An edge between a key and one of its neighbours; None if the key's lists lack it.

        Args:
            lists: Lists of the key's layer.
            key: Index of the key in its layer.
            other: The neighbour.
            metric: `attr` or `attr_abs`.

        Raises:
            StorageError: If the file is damaged.
        """
        place, position = lists.edges.keys.place(key), lists.edges.neighbours.of_key(other)
        if place is None or position is None:  # it has zeros alone
            return _ZERO
        for normalized in (False, True):
            complete = True
            for sign in SIGNS:
                known = self.neighbours(lists, place, Measure(metric, normalized), sign)
                places = np.flatnonzero(known.positions == position)
                if len(places):
                    error = math.nan if known.errors is None else float(known.errors[places[0]])
                    return HeldEdge(float(known.raw[places[0]]), error)
                complete = complete and known.complete
            if complete:  # all that are not zero are there
                return _ZERO
        return None

    def _list(self, name: str, record: int, number: int, n_entries: int) -> IndexedList:
        place = record if name == PAIRS else self._lists.place(name, record)
        if place is None:
            return _NOTHING
        known = self._lists.list_of(name, place, number, n_entries)
        not_held = NotHeld(known.n_dropped, known.mass_dropped) if known.n_dropped else None
        return IndexedList(known.positions, known.raw, not_held is None, not_held, known.errors)
