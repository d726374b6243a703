"""Files that hold the strongest edges of a result alone, and all that its numbers mean.

Lists of the strongest edges come first, then an archive with normalisers, provenance and the shapes of the sums that
are not held, and the table of contents. Nothing else is needed to answer from it.
"""

import io
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import StorageError, naming, reason, shown
from lit_attr.files.limits import check_content
from lit_attr.files.output import Product
from lit_attr.files.publish import reading
from lit_attr.storage.file_content import EDGES, Content, checked_keys, to_file
from lit_attr.storage.lists_file import Format, ListsFile, Section
from lit_attr.storage.standard_errors import EDGES as ERRORS_OF_EDGES


class CountedSection(Section):
    """Records that also say what is in none of their lists: how many edges of the sign, and the sum of magnitudes."""

    counts_dropped: ClassVar[bool] = True

    def _columns(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [
            *super()._columns(),
            ("n_dropped", "<i8", (self.n_lists,)),
            ("mass_dropped", "<f8", (self.n_lists,)),
        ]


class SureSection(CountedSection):
    """Records that have the standard errors of their edges, too, as bits of bfloat16."""

    has_errors: ClassVar[bool] = True

    def _columns(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [*super()._columns(), ("error", "<u2", (self.n_lists, self.k))]


STRONGEST_FORMAT = Format("a file of strongest edges", b"\nlit_attr strongest\n", {1: CountedSection, 2: SureSection})
STRONGEST = Product("a file of strongest edges of lit-attr export", b"", STRONGEST_FORMAT.mark)


class StoredList(NamedTuple):
    """A list of strongest edges, best first.

    Attributes:
        positions: What stands for each.
        raw: Raw attribution of each.
        errors: Stored standard error of each, where the file has them.
        n_dropped: How many weaker edges of the same sign there were.
        mass_dropped: Sum of their magnitudes, in the measure that ranks.
    """

    positions: Int[np.ndarray, " edge"]
    raw: Float[np.ndarray, " edge"]
    errors: Float[np.ndarray, " edge"] | None
    n_dropped: int
    mass_dropped: float


def is_strongest(path: Path) -> bool:
    """Whether a file begins as one of strongest edges does.

    Raises:
        StorageError: If it cannot be read.
    """
    with reading(path) as file:
        return file.read(len(STRONGEST_FORMAT.mark)) == STRONGEST_FORMAT.mark


def write_head(file: BinaryIO, content: Content, keys: Mapping[str, Int[Tensor, " record"]]) -> dict[str, int]:
    """Write all but the lists: what numbers are divided by, where they come from, and which edges there are.

    Args:
        file: Open at its end.
        content: What was harvested.
        keys: Name of a section to the keys that have a record in it.

    Returns:
        Where it stands, for the table of contents.
    """
    start, archive = file.tell(), io.BytesIO()
    shapes = {name: _shapes(getattr(content, name)) for name in EDGES}
    head = {"content": to_file(content, without=(*EDGES, "standard_errors")), "shapes": shapes, "keys": dict(keys)}
    if (errors := content.standard_errors) is not None:
        head["standard_errors"] = {"n_groups": errors.n_groups, "n_all_groups": errors.n_all_groups}
        head["standard_errors"] |= {name: _shapes(getattr(errors, name)) for name in ERRORS_OF_EDGES}
    torch.save(head, archive)
    data = archive.getvalue()
    file.write(data)
    return {"offset": start, "length": len(data), "crc": zlib.crc32(data)}


class StrongestFile(ListsFile):
    """An open file of strongest edges.

    Args:
        path: Path of the file.

    Raises:
        StorageError: If it is missing, truncated or damaged, or was written by another version.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, STRONGEST_FORMAT)
        k = self.contents.get("k")
        if not (type(k) is int and k > 0):
            raise StorageError(f"{path}: expected a number k of at least 1, found {shown(k)}")
        self.k = k
        with naming(path):
            self._keys = self._checked_keys(self._head["keys"])

    @cached_property
    def _head(self) -> dict[str, Any]:
        entry = self.contents.get("head")
        names = ("offset", "length", "crc")
        numbers = [n for name in names if type(n := entry.get(name)) is int] if isinstance(entry, dict) else []
        if len(numbers) != len(names) or min(numbers) < 0 or sum(numbers[:2]) > self._size:
            raise StorageError(f"{self.path}: expected offset, length and crc of the head, found {shown(entry)}")
        offset, length, crc = numbers
        data = self.read(offset, length)
        if len(data) != length or zlib.crc32(data) != crc:
            raise StorageError(f"{self.path} is damaged: its normalisers and provenance are not what was written")
        try:
            head = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged archive
            raise StorageError(f"cannot read the normalisers in {self.path}: {reason(error)}") from error
        with naming(self.path):
            check_content(head, length)
            if not isinstance(head, dict) or not all(
                isinstance(head.get(n), dict) for n in ("content", "shapes", "keys")
            ):
                raise StorageError("expected content, shapes and keys of a file of strongest edges")
        return head

    def content_keys(self) -> dict[str, Any]:
        """The arguments of `Content`; sums of edges are tensors on the meta device, without numbers.

        Raises:
            StorageError: If they are not those of a harvest.
        """
        with naming(self.path):
            edges = {name: _without_numbers(shapes) for name, shapes in self._head["shapes"].items()}
            if isinstance(errors := self._head.get("standard_errors"), dict):
                of_edges = {
                    name: _without_numbers(shapes, torch.bfloat16)
                    for name, shapes in errors.items()
                    if name in ERRORS_OF_EDGES
                }
                edges["standard_errors"] = {**errors, **of_edges}
            return checked_keys({**self._head["content"], **edges})

    def place(self, name: str, key: int) -> int | None:
        """The number of a key's record; None for a key without edges.

        Args:
            name: Name of the section.
            key: Place of the key in its layer.

        Raises:
            StorageError: If there is no such section.
        """
        if name not in self._keys:
            raise StorageError(f"{self.path} is damaged: it has no lists {name}")
        keys = self._keys[name]
        place = int(torch.searchsorted(keys, key))
        return place if place < len(keys) and int(keys[place]) == key else None

    def keys(self, name: str) -> Int[Tensor, " record"]:
        """The keys that have a record in a section, ascending."""
        return self._keys[name]

    def list_of(self, name: str, record: int, number: int, n_possible: int) -> StoredList:
        """A list of a record, and what was dropped from it.

        Args:
            name: Name of the section.
            record: Number of the record in its section, from 0.
            number: Number of the list in its record, from 0.
            n_possible: How many things may stand in the list; positions are smaller.

        Raises:
            StorageError: If it is damaged.
        """
        lists = self.record(name, record)
        positions, raw, errors = self.filled(lists, name, record, number, n_possible)
        n_dropped, mass = int(lists["n_dropped"][number]), float(lists["mass_dropped"][number])
        if not (0 <= n_dropped <= n_possible - len(positions) and 0 <= mass < float("inf")):
            raise self.damaged(name, record)
        return StoredList(positions, raw, errors, n_dropped, mass)

    def check_all(self) -> int:
        """Compare every record with its check sum, and look whether its numbers are finite.

        Returns:
            The number of records.

        Raises:
            StorageError: If one is damaged.
        """
        for section in self.sections.values():
            for number in range(section.n_records):
                lists = self.record(section.name, number)
                if not (np.isfinite(lists["raw"]).all() and np.isfinite(lists["mass_dropped"]).all()):
                    raise self.damaged(section.name, number)
        return sum(section.n_records for section in self.sections.values())

    def _checked_keys(self, keys: Mapping[str, Any]) -> dict[str, Tensor]:
        for name, ids in keys.items():
            section = self.sections.get(name)
            is_ids = isinstance(ids, Tensor) and ids.ndim == 1 and ids.dtype == torch.int64
            if section is None or not is_ids or len(ids) != section.n_records or not bool((ids.diff() > 0).all()):
                raise StorageError(f"expected the keys of the records of {shown(name)}, ascending, found {shown(ids)}")
        return dict(keys)


def _shapes(value: Any) -> Any:  # noqa: ANN401 - a tensor, or a mapping of such
    return {key: _shapes(v) for key, v in value.items()} if isinstance(value, Mapping) else list(value.shape)


def _without_numbers(shapes: Any, dtype: torch.dtype = torch.float32) -> Any:  # noqa: ANN401 - a shape, or a mapping
    if isinstance(shapes, dict):
        return {key: _without_numbers(inner, dtype) for key, inner in shapes.items()}
    try:
        return torch.empty(shapes, dtype=dtype, device="meta")
    except (RuntimeError, TypeError) as error:
        raise StorageError(f"expected the shape of a tensor, found {shown(shapes)}") from error
