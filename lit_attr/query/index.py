"""Asking an index: the strongest neighbours of a key, and what is known of pairs of layers.

An index that does not belong to its stored harvest, or is damaged, is not used: a warning says so, and the answers come
from the stored harvest itself. They are the same, and take longer.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_attr.errors import StorageError
from lit_attr.query.index_file import IndexFile, identity, index_path
from lit_attr.query.lists import PAIRS, Family, place_of
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import Sign

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexedNeighbours:
    """The strongest neighbours of a key, best first.

    Attributes:
        layers: Of each.
        indices: Of each in its layer.
        raw: Raw value of each.
        complete: Whether these are all neighbours of the sign.
    """

    layers: list[str]
    indices: list[int]
    raw: np.ndarray
    complete: bool


class Index:
    """The index of a stored harvest.

    Args:
        file: Its file.
    """

    def __init__(self, file: IndexFile) -> None:
        self._file = file
        self._is_known_damaged = False
        self._pairs = {(s, t, metric): n for n, (s, t, metric, *_) in enumerate(file.contents["pairs"])}

    @classmethod
    def open(cls, storage: Path) -> "Index | None":
        """The index beside a stored harvest; None if there is none that can be used."""
        path = index_path(storage)
        if not path.is_file():
            return None
        try:
            file = IndexFile(path)
        except StorageError as error:
            _warn(error, storage)
            return None
        if file.contents["storage"] != identity(storage):
            _warn(f"{path} is of another result than the one that is now in {storage}", storage)
            return None
        return cls(file)

    def neighbours(self, family: Family, key: int, measure: Measure, sign: Sign) -> IndexedNeighbours | None:
        """The strongest neighbours of a key, of one kind; None if they are not known.

        Args:
            family: Which lists.
            key: Index of the key in its layer.
            measure: Which numbers decide.
            sign: Which end.
        """
        found = self._list(family.name, key, place_of(measure.metric, measure.normalized, sign))
        if found is None:
            return None
        positions, raw, is_full = found
        starts = np.cumsum([0, *(size for _, size in family.neighbours)])
        places = np.searchsorted(starts, positions, side="right") - 1
        layers = [family.neighbours[place][0] for place in places]
        complete = not is_full or len(positions) == family.n_neighbours
        return IndexedNeighbours(layers, (positions - starts[places]).tolist(), raw, complete)

    def mass(self, pair: tuple[str, str], measure: Measure) -> float | None:
        """Sum of the absolute values of all edges between two layers; None if it is not known."""
        number = self._pairs.get((*pair, measure.metric))
        if number is None:
            return None
        *_, raw, normalized = self._file.contents["pairs"][number]
        return normalized if measure.normalized else raw

    def edges(self, pair: tuple[str, str], measure: Measure, sign: Sign) -> tuple[np.ndarray, np.ndarray, bool] | None:
        """The strongest edges between two layers; None if they are not known.

        Returns:
            Positions (`target * n_sources + source`), raw values, and whether there may be more edges of the sign.
        """
        number = self._pairs.get((*pair, measure.metric))
        return None if number is None else self._list(PAIRS, number, place_of("attr", measure.normalized, sign))

    def _list(self, name: str, number: int, place: int) -> tuple[np.ndarray, np.ndarray, bool] | None:
        if name not in self._file.sections:
            return None
        try:
            record = self._file.record(name, number)
        except StorageError as error:
            if not self._is_known_damaged:
                _warn(error, "this question, and any other that meets damage")
            self._is_known_damaged = True
            return None
        positions = record["position"][place]
        n_valid = int((positions >= 0).sum())
        # Copies: the file's own bytes cannot be written to, which torch does not like.
        raw = record["raw"][place][:n_valid].copy()
        return positions[:n_valid].astype(np.int64), raw, n_valid == len(positions)


def _warn(problem: object, what: object) -> None:
    _log.warning("lit-attr: %s: not used for %s; `lit-attr index` writes it anew", problem, what)
