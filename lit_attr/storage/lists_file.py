"""Files of lists: sections of records of one size, and behind them a table of contents.

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
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from lit_attr.errors import StorageError, naming, shown

# Behind the table of contents: its length, its check sum, the mark.
_NUMBERS = np.dtype([("length", "<u8"), ("crc", "<u4")])
_LARGEST_SHORT, _LARGEST_LONG = np.iinfo(np.int32).max, np.iinfo(np.int64).max
_PAIR, _MAX = 5, sys.float_info.max
_BYTES_OF_ENTRY = 8  # at least: a position and a value


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

    # Whether records say what is in no list, and have the standard errors of what is in one.
    counts_dropped: ClassVar[bool] = False
    has_errors: ClassVar[bool] = False

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
        return np.dtype([*self._columns(), ("crc", "<u4")])

    def _columns(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """What a record holds before its check sum: names, types and shapes."""
        position = "<i4" if self.n_positions <= _LARGEST_SHORT else "<i8"
        shape = (self.n_lists, self.k)
        return [("position", position, shape), ("raw", "<f4", shape)]

    @property
    def nbytes(self) -> int:
        """Size of all records."""
        return self.n_records * self.dtype.itemsize

    def encode(self, columns: Mapping[str, Shaped[np.ndarray, "record _list *_k"]]) -> bytes:
        """Records of some keys, by the names of what they hold."""
        records = np.zeros(len(columns["position"]), self.dtype)
        for name, values in columns.items():
            records[name] = values
        records["crc"] = [_check_sum(record) for record in records]
        return records.tobytes()


def _check_sum(record: np.void) -> int:
    data = record.tobytes()
    return zlib.crc32(data[:-4])  # its own four bytes come last


@dataclass(frozen=True)
class Format:
    """A kind of file of lists.

    Attributes:
        name: What it is called in messages, such as `an index`.
        mark: Bytes that it begins and ends with.
        sections: Numbers of the versions that are read, and what their sections are.
    """

    name: str
    mark: bytes
    sections: Mapping[int, type[Section]]


def write_contents(
    file: BinaryIO, kind: Format, version: int, contents: Mapping[str, Any], sections: list[Section]
) -> None:
    """Write the table of contents behind the records."""
    entries = [asdict(section) for section in sections]
    table = json.dumps({**contents, "version": version, "sections": entries}).encode()
    file.write(table + np.array((len(table), zlib.crc32(table)), _NUMBERS).tobytes() + kind.mark)


class Listed(NamedTuple):
    """A list of strongest edges, best first.

    Attributes:
        positions: What stands for each.
        raw: Raw attribution of each.
        errors: Stored standard error of each, where the file has them.
    """

    positions: Int[np.ndarray, " entry"]
    raw: Float[np.ndarray, " entry"]
    errors: Float[np.ndarray, " entry"] | None


class ListsFile:
    """An open file of lists.

    Args:
        path: Path of the file.
        kind: What it should be.

    Attributes:
        contents: The table of contents.
        sections: Its sections by name.
        pairs: Pairs of layers: source, target, metric, and the sums of all raw and normalised magnitudes.

    Raises:
        StorageError: If it is missing, truncated or damaged, or was written by another version.
    """

    def __init__(self, path: Path, kind: Format) -> None:
        self.path = path
        try:
            # Not mapped: whoever writes over a file that is mapped kills those that read it.
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self._size = os.fstat(self._file).st_size
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}") from error
        self.contents = self._read_contents(kind)
        version = self.contents.get("version")
        section = kind.sections.get(version) if type(version) is int else None
        if section is None:
            raise StorageError(
                f"{path} has version {shown(version)}, which this version of lit_attr does not know (it knows "
                f"{' and '.join(map(str, kind.sections))})"
            )
        with naming(path):
            entries = _list_in(self.contents, "sections")
            self.sections = {s.name: s for s in (section.from_entry(entry, self._size) for entry in entries)}
            self.pairs = [_pair(entry) for entry in _list_in(self.contents, "pairs")]

    def _read_contents(self, kind: Format) -> dict[str, Any]:
        behind = _NUMBERS.itemsize + len(kind.mark)
        end = self.read(max(self._size - behind, 0), behind)
        if len(end) == behind and end.endswith(kind.mark):
            length, check_sum = (int(number) for number in np.frombuffer(end[: -len(kind.mark)], _NUMBERS)[0])
            start = self._size - behind - length
            table = self.read(start, length) if start >= 0 else b""
            if len(table) == length and zlib.crc32(table) == check_sum:
                with suppress(ValueError, RecursionError):
                    contents = json.loads(table)
                    if isinstance(contents, dict):
                        return contents
        raise StorageError(f"{self.path} is damaged: it does not end as {kind.name} does")

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the file; fewer where it ends."""
        try:
            return os.pread(self._file, length, start)
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error}") from error

    def record(self, name: str, number: int) -> np.void:
        """All lists of a key.

        Args:
            name: Name of the section.
            number: Number of the record in its section, from 0.

        Raises:
            StorageError: If it is damaged.
        """
        section = self.sections[name]
        size = section.dtype.itemsize
        data = self.read(section.offset + number * size, size) if number < section.n_records else b""
        record = np.frombuffer(data, section.dtype)[0] if len(data) == size else None
        if record is None or _check_sum(record) != record["crc"]:
            raise self.damaged(name, number)
        return record

    def entries(self, name: str, record: int, number: int, n_possible: int) -> Listed:
        """A list of a record, as far as it is filled.

        Args:
            name: Name of the section.
            record: Number of the record in its section, from 0.
            number: Number of the list in its record, from 0.
            n_possible: How many things may stand in the list; positions are smaller.

        Raises:
            StorageError: If it is damaged.
        """
        return self.filled(self.record(name, record), name, record, number, n_possible)

    def filled(self, lists: np.void, name: str, record: int, number: int, n_possible: int) -> Listed:
        """A list of a record that was read already; the others as for `entries`."""
        if number < self.sections[name].n_lists:
            positions = lists["position"][number].astype(np.int64)
            n_filled = int((positions >= 0).sum())
            positions, raw = positions[:n_filled], lists["raw"][number][:n_filled]
            errors = _widened(lists["error"][number][:n_filled]) if self.sections[name].has_errors else None
            are_errors = errors is None or (np.isfinite(errors) & (errors >= 0)).all()
            if are_errors and np.isfinite(raw).all() and ((positions >= 0) & (positions < n_possible)).all():
                return Listed(positions, raw, errors)
        raise self.damaged(name, record)

    def damaged(self, name: str, record: int) -> StorageError:
        """What to say of a record that is not what was written."""
        return StorageError(f"{self.path} is damaged: record {record} of {name} is not what was written")


def _widened(bits: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Numbers from the bits that they have as bfloat16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


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
