"""Asking an index: the strongest neighbours of a key, and what is known of pairs of layers.

An index that does not belong to its result, or is damaged, is not used: a warning says so, and the answers come from
the result itself. They are the same, and take longer.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from lit_attr.errors import StorageError
from lit_attr.query.found import NotHeld
from lit_attr.query.index_file import identity, index_path, open_index
from lit_attr.query.index_lists import PAIRS, KeyLists, number_in_key, number_in_pair
from lit_attr.storage.lists_file import ListsFile
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import Sign

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexedList:
    """A list of strongest edges, best first.

    Attributes:
        positions: What stands for each: of a key's neighbours, their positions; of a pair's edges,
            `target * n_sources + source`, of the places of both.
        raw: Raw attribution of each.
        complete: Whether these are all of the sign.
        not_held: What is known of the others, where they are nowhere; None where the result has them.
        errors: Stored standard error of each, where the lists have them.
    """

    positions: Int[np.ndarray, " edge"]
    raw: Float[np.ndarray, " edge"]
    complete: bool
    not_held: NotHeld | None = None
    errors: Float[np.ndarray, " edge"] | None = None


class Index:
    """The index of a result.

    Args:
        file: Its file.
    """

    def __init__(self, file: ListsFile) -> None:
        self._file = file
        self._is_known_damaged = False
        self._pairs = {(s, t, metric): n for n, (s, t, metric, *_) in enumerate(file.pairs)}

    @classmethod
    def open(cls, storage: Path) -> "Index | None":
        """The index beside a result; None if there is none that can be used."""
        path = index_path(storage)
        if not path.is_file():
            return None
        try:
            file = open_index(path)
        except StorageError as error:
            _warn(error, storage)
            return None
        if file.contents.get("storage") != identity(storage):
            _warn(f"{path} is of another result than the one that is now in {storage}", storage)
            return None
        return cls(file)

    def neighbours(self, lists: KeyLists, key: int, measure: Measure, sign: Sign) -> IndexedList | None:
        """The strongest neighbours of a key, of one kind; None if they are not known.

        Args:
            lists: Lists of the key's layer.
            key: Place of the key in its layer.
            measure: Which numbers rank.
            sign: Which end.
        """
        return self._list(lists.name, key, number_in_key(measure, sign), len(lists.edges.neighbours))

    def mass(self, pair: tuple[str, str], measure: Measure) -> float | None:
        """Sum of the absolute values of all edges between two layers; None if it is not known."""
        number = self._pairs.get((*pair, measure.metric))
        if number is None:
            return None
        *_, raw, normalized = self._file.pairs[number]
        return normalized if measure.normalized else raw

    def edges(self, pair: tuple[str, str], measure: Measure, sign: Sign, n_edges: int) -> IndexedList | None:
        """The strongest edges between two layers, of which `n_edges` are stored; None if they are not known."""
        number = self._pairs.get((*pair, measure.metric))
        return None if number is None else self._list(PAIRS, number, number_in_pair(measure, sign), n_edges)

    def _list(self, name: str, record: int, number: int, n_entries: int) -> IndexedList | None:
        """A list of a record; `n_entries` is how many entries the longest possible list would have."""
        if name not in self._file.sections:
            return None
        try:
            positions, raw, _ = self._file.entries(name, record, number, n_entries)
        except StorageError as error:
            if not self._is_known_damaged:
                _warn(error, "this question, and any other that meets damage")
            self._is_known_damaged = True
            return None
        complete = len(positions) < self._file.sections[name].k or len(positions) == n_entries
        return IndexedList(positions, raw, complete)


def _warn(problem: object, what: object) -> None:
    _log.warning("lit-attr: %s: not used for %s; `lit-attr index` writes it anew", problem, what)
