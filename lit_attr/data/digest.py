"""Digests and bounds of rows of token ids: every row counts, and what is known of a file is remembered beside it."""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from lit_attr.data.random_order import RandomOrder, rows_at
from lit_attr.errors import StorageError
from lit_attr.files.identity import FileIdentity
from lit_attr.files.json_file import publish_json, read_json
from lit_attr.files.lock import locked

_log = logging.getLogger(__name__)
_FORMAT = 2
_BLOCK_BYTES = 1 << 26
_PIECE_BYTES = 1 << 22  # of a block that are copied at once, by each thread
_DIGEST_BYTES = hashlib.sha256().digest_size
_MOST_THREADS = 16  # as many reach the speed of memory
_LONG = 1e9  # bytes that are worth a word to a waiting user
# Nanoseconds for which a file must have been left alone: one that is changed again at once may keep its time.
_SETTLED = 5 * 10**9
_TICK = 0.02  # seconds that the clock of a file system may lag behind


# The smallest and the largest token id of some rows; None of no rows.
_Bounds = tuple[int, int] | None


class RowDigests:
    """Digests of the first rows of an array, as many of them as are asked for, and the bounds of their numbers.

    The digest is SHA-256 over number, length and dtype of the rows and over the digests of their blocks: 64 MB of
    consecutive rows each, which several threads compute. It is that of the rows, whichever way they lie in the file.

    Those of whole blocks are remembered in a hidden file beside the data, `.NAME.digest.json`, and for a random order
    of rows `.NAME.random-SEED.digest.json`, for as long as size, times and inode of the data stay what they were. A
    copy has others. Nothing is remembered where the folder cannot be written into, or of a file that was changed a
    moment ago.

    Args:
        rows: The rows, which may be memory-mapped.
        path: Their file.
        opened: What that file was before it was opened.
        order: The order in which rows come; None for that of the array.
    """

    def __init__(
        self,
        rows: Integer[np.ndarray, "row seq"],
        path: Path,
        opened: FileIdentity,
        order: RandomOrder | None = None,
    ) -> None:
        self._rows, self._path, self._opened, self._order = rows, path, opened, order
        self._row_bytes = rows.shape[1] * rows.itemsize
        self._block_rows = max(1, _BLOCK_BYTES // self._row_bytes)
        self._piece_rows = max(1, _PIECE_BYTES // self._row_bytes)
        self._blocks = b""
        self._bounds: list[_Bounds] = []
        self._of_first: dict[int, tuple[str, _Bounds]] = {}

    def of_first(self, n_rows: int) -> str:
        """The digest of so many rows, in hexadecimal."""
        return self._read_first(n_rows)[0]

    def bounds_of_first(self, n_rows: int) -> tuple[int, int]:
        """The smallest and the largest number in so many rows, at least one."""
        bounds = self._read_first(n_rows)[1]
        if bounds is None:
            raise ValueError("no rows have no bounds")
        return bounds

    def _read_first(self, n_rows: int) -> tuple[str, _Bounds]:
        if n_rows not in self._of_first:
            n_blocks = n_rows // self._block_rows
            self._know(n_blocks)
            digest = hashlib.sha256(f"{n_rows} {self._rows.shape[1]} {self._rows.dtype.str}\n".encode())
            digest.update(self._blocks[: n_blocks * _DIGEST_BYTES])
            of_rest, bounds = self._digest(n_blocks * self._block_rows, n_rows)
            digest.update(of_rest)
            self._of_first[n_rows] = digest.hexdigest(), _united([*self._bounds[:n_blocks], bounds])
        return self._of_first[n_rows]

    def remember(self, n_rows: int) -> None:
        """Have what the digest of so many rows needs remembered for other processes, where that is possible.

        Of a file that was just written this waits until it may be remembered, if each of them would take longer.
        """
        n_blocks = n_rows // self._block_rows
        age = self._age()
        if age is not None and 0 <= age <= _SETTLED and n_blocks * self._block_rows * self._row_bytes > _LONG:
            time.sleep((_SETTLED - age) / 1e9 + _TICK)
        if self._may_remember():
            self._know(n_blocks)

    def _digest(self, first: int, end: int) -> tuple[bytes, _Bounds]:
        """The digest of some rows, and their bounds."""
        digest, bounds = hashlib.sha256(), list[_Bounds]()
        for start in range(first, end, self._piece_rows):
            piece = self._piece(start, min(start + self._piece_rows, end))
            digest.update(piece.data)
            bounds.append((int(piece.min()), int(piece.max())))
        return digest.digest(), _united(bounds)

    def _piece(self, first: int, end: int) -> Integer[np.ndarray, "row seq"]:
        if self._order is None:
            return np.ascontiguousarray(self._rows[first:end])
        return rows_at(self._rows, self._order[np.arange(first, end)])

    @property
    def _n_known(self) -> int:
        return len(self._blocks) // _DIGEST_BYTES

    def _know(self, n_blocks: int) -> None:
        """Know the digests of so many blocks: from the file beside the data, or from the data."""
        self._recall(n_blocks)
        if self._n_known >= n_blocks:
            return
        with ExitStack() as stack:
            if may_remember := self._may_remember():
                with suppress(StorageError):  # without a lock, several processes may do the same
                    waiting = f"waiting for another process to compute the digest of {self._path}"
                    stack.enter_context(locked(self._path.with_name(f".{self._path.name}.digest.lock"), waiting))
                self._recall(n_blocks)
            if self._n_known < n_blocks:
                self._compute(n_blocks)
                if may_remember:
                    self._write_memory()

    def _compute(self, n_blocks: int) -> None:
        """Compute the digests of blocks that are not known."""
        starts = [number * self._block_rows for number in range(self._n_known, n_blocks)]
        n_bytes = len(starts) * self._block_rows * self._row_bytes
        begin = time.monotonic()
        if n_bytes > _LONG:
            _log.info(f"reading {n_bytes / 1e9:.1f} GB of {self._path} for the digest of all its rows")
        pool = ThreadPoolExecutor(min(_n_cpus(), _MOST_THREADS))
        try:
            found = list(pool.map(lambda start: self._digest(start, start + self._block_rows), starts))
            self._blocks += b"".join(digest for digest, _ in found)
            self._bounds += [bounds for _, bounds in found]
        finally:
            pool.shutdown(cancel_futures=True)  # a signal must not wait for all of it
        if n_bytes > _LONG:
            _log.info(f"the digest took {time.monotonic() - begin:.1f} s")

    def _may_remember(self) -> bool:
        age = self._age()
        return age is not None and age > _SETTLED

    def _age(self) -> int | None:
        """Nanoseconds since the file was changed; None if its folder cannot be written into."""
        now = _time_of(self._path.parent)
        return None if now is None else now - max(self._opened.modified, self._opened.changed)

    @property
    def _memory(self) -> Path:
        order = "" if self._order is None else f".random-{self._order.seed}"
        return self._path.with_name(f".{self._path.name}{order}.digest.json")

    @property
    def _key(self) -> dict[str, Any]:
        """What must be as it was for the remembered digests to count."""
        opened = self._opened
        times = {"modified": opened.modified, "changed": opened.changed}
        of_rows = {"row_length": self._rows.shape[1], "dtype": self._rows.dtype.str, "block_rows": self._block_rows}
        return {"format": _FORMAT, "size": opened.size, "inode": opened.inode, **times, **of_rows}

    def _recall(self, n_blocks: int) -> None:
        """Take over what is remembered, if it is more than what is known and not all of that was needed."""
        if self._n_known >= n_blocks or not self._memory.exists():
            return
        try:
            content = read_json(self._memory)
            blocks = bytes.fromhex(content.pop("blocks"))
            bounds: list[_Bounds] = [(int(low), int(high)) for low, high in content.pop("bounds")]
        except (StorageError, KeyError, TypeError, ValueError):
            return  # it is computed again
        is_whole = len(blocks) == len(bounds) * _DIGEST_BYTES
        if content == self._key and is_whole and len(bounds) > self._n_known:
            self._blocks, self._bounds = blocks, bounds

    def _write_memory(self) -> None:
        now = FileIdentity.of(self._path)
        if now is not None and (now, now.changed) == (self._opened, self._opened.changed):
            with suppress(StorageError):
                known = {"blocks": self._blocks.hex(), "bounds": self._bounds}
                publish_json(self._memory, {**self._key, **known}, replace=True)


def _united(some: Sequence[_Bounds]) -> _Bounds:
    known = [bounds for bounds in some if bounds is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _time_of(folder: Path) -> int | None:
    """The time of the file system's own clock, in nanoseconds since the epoch; None if it cannot be written into."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _n_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
