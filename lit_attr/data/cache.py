"""Token rows on disk: tokenized once, extended when more are needed, shared by all processes."""

import hashlib
import json
import logging
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from lit_attr.data.rows import loader_order, read_rows
from lit_attr.data.spec import DatasetSpec
from lit_attr.errors import DataError, StorageError
from lit_attr.files.file_system import explain
from lit_attr.files.json_file import parse_object
from lit_attr.files.lock import locked
from lit_attr.files.publish import make_folder, publish
from lit_attr.files.roots import user_path

_log = logging.getLogger(__name__)
_DTYPE = np.dtype("<i4")
_MAX_ROWS = 1 << 40  # of one token each, the file would have four terabytes
_MAX_PROGRESS = 1 << 12


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class _Progress:
    """How much of the token file counts; anything behind it is the rest of an interrupted run.

    Attributes:
        n_rows: Number of rows written.
        n_batches: Number of batches of source rows that they came from.
        complete: Whether the dataset has no more rows.
    """

    n_rows: Annotated[int, Field(ge=0, lt=_MAX_ROWS)] = 0
    n_batches: Annotated[int, Field(ge=0, lt=_MAX_ROWS)] = 0
    complete: bool = False


class TokenCache:
    """The tokenized rows of one dataset.

    A folder of its own holds `tokens.bin` (rows of little-endian int32), `progress.json`, which is replaced after every
    batch of source rows and counts what is valid, and a lock. After a kill the next run goes on from there.

    Args:
        spec: Description of the dataset.
        root: Folder of all caches.
    """

    def __init__(self, spec: DatasetSpec, root: Path) -> None:
        self.spec = spec
        self.folder = root / _digest(spec)

    @property
    def path(self) -> Path:
        """The file of the rows."""
        return self.folder / "tokens.bin"

    def progress(self) -> _Progress:
        """How far the cache is filled."""
        path = self.folder / "progress.json"
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_PROGRESS)
        except (FileNotFoundError, NotADirectoryError):
            return _Progress()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}") from error
        try:
            return parse_object(text, _Progress, path)
        except StorageError as error:
            raise DataError(f"damaged token cache: {error}; delete {self.folder} to make it anew") from error

    def has(self, n_rows: int | None) -> bool:
        """Whether so many rows are there, or all that the dataset has; `n_rows` None asks for all."""
        progress = self.progress()
        return progress.complete or (
            n_rows is not None and progress.n_rows >= n_rows and not self.spec.order_needs_all_rows
        )

    def prepare(self, n_rows: int | None) -> None:
        """Tokenize what is missing; one process does it, and the others wait as long as it takes.

        Args:
            n_rows: Number of rows that will be read; None for all.

        Raises:
            DataError: If the dataset cannot be had or is not as described.
            StorageError: If the cache cannot be written.
        """
        if self.has(n_rows):
            return
        make_folder(self.folder)
        with locked(self.folder / "lock", f"waiting for another process to tokenize into {self.folder}"):
            if not self.has(n_rows):
                self._extend(n_rows)

    def _extend(self, n_rows: int | None) -> None:
        wanted = None if self.spec.order_needs_all_rows else n_rows
        done = self.progress()
        _log.info(f"tokenizing {self.spec.dataset_name} into {self.folder} ({done.n_rows} rows are there)")
        publish(self.folder / "spec.json", lambda file: file.write(json.dumps(asdict(self.spec), indent=1).encode()))
        try:
            with open(self.path, "ab") as file:
                if file.tell() < done.n_rows * self._row_bytes:
                    raise DataError(f"truncated token cache {self.path}: delete {self.folder} to make it anew")
                file.truncate(done.n_rows * self._row_bytes)
                for rows in read_rows(self.spec, done.n_batches):
                    file.write(rows.astype(_DTYPE).tobytes())
                    file.flush()
                    os.fsync(file.fileno())
                    done = _Progress(done.n_rows + len(rows), done.n_batches + 1)
                    self._publish(done)
                    if wanted is not None and done.n_rows >= wanted:
                        return
        except OSError as error:
            raise StorageError(f"cannot write the token cache {self.path}: {explain(error, self.path)}") from error
        self._publish(_Progress(done.n_rows, done.n_batches, complete=True))

    def _publish(self, progress: _Progress) -> None:
        publish(self.folder / "progress.json", lambda file: file.write(json.dumps(asdict(progress)).encode()))

    @property
    def _row_bytes(self) -> int:
        return self.spec.max_seq_len * _DTYPE.itemsize

    def open(self) -> tuple[Int[np.ndarray, "row seq"], Int[np.ndarray, " row"] | None]:
        """The rows, memory-mapped, and the order in which to read them; None for the order of the file.

        Raises:
            DataError: If there are no rows, or fewer than there should be.
        """
        n_rows = self.progress().n_rows
        if n_rows == 0:
            raise DataError(
                f"dataset {self.spec.dataset_name!r}, split {self.spec.split!r}, gives no row of "
                f"{self.spec.max_seq_len} tokens ({self.folder})"
            )
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < n_rows * self._row_bytes:
            raise DataError(f"truncated token cache {self.path}: delete {self.folder} to make it anew")
        rows = np.memmap(self.path, _DTYPE, "r", shape=(n_rows, self.spec.max_seq_len))
        order = loader_order(n_rows, self.spec.seed) if self.spec.order_needs_all_rows else None
        return rows, None if order is None else np.asarray(order)


def _digest(spec: DatasetSpec) -> str:
    """A digest of what decides the content: the description, and the sizes and times of local files."""
    parts = [json.dumps(asdict(spec), sort_keys=True)]
    if spec.streaming:  # its releases shuffle streams differently
        parts.append(version("datasets"))
    for path in [user_path(name) for name in (spec.dataset_name, spec.tokenizer) if name]:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] * path.is_file()
        parts += [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
