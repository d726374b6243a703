"""The file of an index: sections of records of one size, and behind them a table of contents.

A record holds all lists of one key, so that a question reads one stretch of the file. Each has a check sum of its own:
checking the whole file would take longer than any question.
"""

import json
import os
import sys
import weakref
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, Int

from lit_attr.errors import StorageError, naming, shown
from lit_attr.files.output import Product
from lit_attr.files.publish import reading
from lit_attr.files.seal import sealed_digest

VERSION = 1
_MARK = b"\nlit_attr index\n"
# Files of versions before have the mark at their end alone.
INDEX = Product("an index of lit-attr index", b"", _MARK)
# Behind the table of contents: its length, its check sum, the mark.
_NUMBERS = np.dtype([("length", "<u8"), ("crc", "<u4")])
_END = _NUMBERS.itemsize + len(_MARK)
_LARGEST_SHORT, _LARGEST_LONG = np.iinfo(np.int32).max, np.iinfo(np.int64).max
_PAIR, _MAX = 5, sys.float_info.max
_BYTES_OF_ENTRY = 8  # at least: a position and a value


def index_path(storage: Path) -> Path:
    """Where the index of a result is."""
    return storage.with_suffix(".index")


def identity(storage: Path) -> dict[str, Any]:
    """What an index recognises its result by: the digest in its seal, else its time of change.

    Raises:
        StorageError: If the file cannot be read.
    """
    with reading(storage) as file:
        status, digest = os.fstat(file.fileno()), sealed_digest(file)
    return {"size": status.st_size, **({"sha256": digest} if digest else {"mtime_ns": status.st_mtime_ns})}


@dataclass(frozen=True)
class Section:
    """Records of one size.

    Attributes:
        name: Unique in the file.
        offset: Where the first record begins, in bytes.
        n_records: Number of records.
        n_lists: Lists of a record.
        k: Entries of a list.
        n_positions: Bound of the positions, which are smaller.
    """

    name: str
    offset: int
    n_records: int
    n_lists: int
    k: int
    n_positions: int

    @classmethod
    def from_entry(cls, entry: object, nbytes: int) -> "Section":
        """Read an entry of the table of contents.

        Args:
            entry: What stands there.
            nbytes: Length of the file.

        Raises:
            StorageError: If it is none, or its records do not lie in the file.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(entry, dict) or entry.keys() != set(names):
            raise StorageError(f"expected a section with {', '.join(names)}, found {shown(entry)}")
        numbers = [entry[name] for name in names if name != "name"]
        is_section = isinstance(entry["name"], str) and all(type(n) is int and 0 <= n < _LARGEST_LONG for n in numbers)
        record = _BYTES_OF_ENTRY * entry["n_lists"] * entry["k"] if is_section else 0
        if not is_section or record > nbytes or entry["offset"] + record * entry["n_records"] > nbytes:
            raise StorageError(f"expected a section within {nbytes:,} bytes, found {shown(entry)}")
        return cls(**entry)

    @cached_property
    def dtype(self) -> np.dtype:
        """Layout of a record."""
        position = "<i4" if self.n_positions <= _LARGEST_SHORT else "<i8"
        shape = (self.n_lists, self.k)
        return np.dtype([("position", position, shape), ("raw", "<f4", shape), ("crc", "<u4")])

    @property
    def nbytes(self) -> int:
        """Size of all records."""
        return self.n_records * self.dtype.itemsize

    def encode(self, positions: Int[np.ndarray, "record _list _k"], raw: Float[np.ndarray, "record _list _k"]) -> bytes:
        """Records of some keys."""
        records = np.zeros(len(positions), self.dtype)
        records["position"], records["raw"] = positions, raw
        records["crc"] = [_check_sum(record) for record in records]
        return records.tobytes()


def _check_sum(record: np.void) -> int:
    data = record.tobytes()
    return zlib.crc32(data[:-4])  # its own four bytes come last


def write_mark(file: BinaryIO) -> int:
    """Begin an index, so that it is known for one even when its end is lost.

    Returns:
        Where the first record begins.
    """
    return file.write(_MARK)


def write_contents(file: BinaryIO, contents: Mapping[str, Any], sections: list[Section]) -> None:
    """Write the table of contents behind the records."""
    table = json.dumps({**contents, "version": VERSION, "sections": [asdict(section) for section in sections]}).encode()
    file.write(table + np.array((len(table), zlib.crc32(table)), _NUMBERS).tobytes() + _MARK)


class IndexFile:
    """An open index.

    Args:
        path: The index's file.

    Raises:
        StorageError: If it is missing, truncated or damaged, or was written by another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Not mapped: whoever writes over a file that is mapped kills those that read it.
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self._size = os.fstat(self._file).st_size
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}") from error
        self.contents = self._read_contents()
        if self.contents.get("version") != VERSION:
            raise StorageError(
                f"{path} has version {shown(self.contents.get('version'))}, which this version of lit_attr does not "
                f"know (it knows {VERSION})"
            )
        with naming(path):
            sections = [Section.from_entry(entry, self._size) for entry in _list_in(self.contents, "sections")]
            self.pairs = [_pair(entry) for entry in _list_in(self.contents, "pairs")]
        self.sections = {section.name: section for section in sections}

    def _read_contents(self) -> dict[str, Any]:
        end = self._read(max(self._size - _END, 0), _END)
        if len(end) == _END and end.endswith(_MARK):
            length, check_sum = (int(number) for number in np.frombuffer(end[: -len(_MARK)], _NUMBERS)[0])
            start = self._size - _END - length
            table = self._read(start, length) if start >= 0 else b""
            if len(table) == length and zlib.crc32(table) == check_sum:
                with suppress(ValueError, RecursionError):
                    contents = json.loads(table)
                    if isinstance(contents, dict):
                        return contents
        raise StorageError(f"{self.path} is damaged: it does not end as an index does")

    def _read(self, start: int, length: int) -> bytes:
        """Bytes of the file; fewer where it ends."""
        try:
            return os.pread(self._file, length, start)
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error}") from error

    def entries(
        self, name: str, record: int, number: int, n_possible: int
    ) -> tuple[Int[np.ndarray, " entry"], Float[np.ndarray, " entry"]]:
        """A list of a record, as far as it is filled.

        Args:
            name: Name of the section.
            record: Number of the record in its section, from 0.
            number: Number of the list in its record, from 0.
            n_possible: How many things may stand in the list; positions are smaller.

        Returns:
            Positions, and raw values.

        Raises:
            StorageError: If it is damaged.
        """
        section = self.sections[name]
        size = section.dtype.itemsize
        data = self._read(section.offset + record * size, size) if record < section.n_records else b""
        lists = np.frombuffer(data, section.dtype)[0] if len(data) == size and number < section.n_lists else None
        if lists is not None and _check_sum(lists) == lists["crc"]:
            positions = lists["position"][number].astype(np.int64)
            n_filled = int((positions >= 0).sum())
            positions, raw = positions[:n_filled], lists["raw"][number][:n_filled]
            if np.isfinite(raw).all() and ((positions >= 0) & (positions < n_possible)).all():
                return positions, raw
        raise StorageError(f"{self.path} is damaged: record {record} of {name} is not what was written")


def _list_in(contents: Mapping[str, Any], name: str) -> list[Any]:
    value = contents.get(name)
    if not isinstance(value, list):
        raise StorageError(f"expected a list of {name}, found {shown(value)}")
    return value


def _pair(entry: Any) -> tuple[str, str, str, float, float]:  # noqa: ANN401 - whatever someone wrote
    """Source layer, target layer and metric of a pair, and its raw and normalised mass."""
    is_pair = isinstance(entry, list) and len(entry) == _PAIR and all(isinstance(name, str) for name in entry[:3])
    if not is_pair or not all(isinstance(mass, float | int) and 0 <= mass <= _MAX for mass in entry[3:]):
        raise StorageError(f"expected two layers, a metric and two masses, found {shown(entry)}")
    source, target, metric, raw, normalized = entry
    return source, target, metric, raw, normalized
