"""Ledgers: what a part says of itself. They are read without a look at the sums, and without torch."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import AfterValidator, Field

from lit_attr.data.batch_ids import Ids, check_ranges, count, from_ranges
from lit_attr.errors import StorageError, reason
from lit_attr.files.json_file import parse_object
from lit_attr.files.publish import reading
from lit_attr.parts.software import Software

# More than any harvest has. A damaged number must not take all time.
MAX_WORKERS = 100_000
# A part begins like a file of safetensors: the length of the head in eight bytes, then the head, a JSON object whose
# first entry is the ledger, as text, and whose others say what tensors follow.
_BEGIN, _COMMA = b'{"__metadata__":', b","
_ALIGNED = 8
_MAX_HEAD = 1 << 28

Count = Annotated[int, Field(ge=0)]
Time = Annotated[float, Field(allow_inf_nan=False)]
WorldSize = Annotated[int, Field(ge=1, le=MAX_WORKERS)]
StoredRanges = Annotated[list[tuple[int, int, int]], AfterValidator(check_ranges)]


@dataclass(frozen=True)
class Ledger:
    """What a part says of itself.

    Attributes:
        plan: Digest of the harvest's plan.
        generation: Number of the generation in which it was written.
        rank: Rank of its worker.
        world_size: Number of workers of the generation.
        batches: Ids of the batches in it, as ranges.
        n_tokens: Number of tokens in it.
        started: When the worker began, in seconds since the epoch.
        committed: When the part was written.
        n_before: Batches that were in the part when the worker began.
        software: The versions that have added to it, as `lit_attr.parts.software` names them.
        target_shard: Which target shard its sums are of, from 0.
        target_shards: Among how many shards targets are dealt out.
    """

    plan: str
    generation: Annotated[int, Field(ge=1)]
    rank: Count
    world_size: WorldSize
    batches: StoredRanges = field(default_factory=list)
    n_tokens: Count = 0
    started: Time = 0.0
    committed: Time = 0.0
    n_before: Count = 0
    software: Sequence[Software] = field(default_factory=list)
    target_shard: Count = 0
    target_shards: WorldSize = 1

    @property
    def ids(self) -> Ids:
        """The batches in it."""
        return from_ranges(self.batches)

    @property
    def n_batches(self) -> int:
        """How many batches are in it."""
        return count(self.batches)


@dataclass(frozen=True)
class Head:
    """What stands before the numbers of a part.

    Attributes:
        ledger: The part's ledger.
        table: What is said of the tensors, as `head` takes it.
        length: Bytes before the first number.
    """

    ledger: Ledger
    table: bytes
    length: int


def head(ledger: Ledger, table: bytes) -> bytes:
    """The bytes before the numbers of a part.

    Args:
        ledger: The part's ledger.
        table: What is said of the tensors: JSON, an object less its opening brace.
    """
    metadata = json.dumps({"ledger": json.dumps(asdict(ledger))}).encode()
    text = _BEGIN + metadata + _COMMA + table
    text += b" " * (-len(text) % _ALIGNED)
    return len(text).to_bytes(_ALIGNED, "little") + text


def read_head(file: BinaryIO, path: Path) -> Head:
    """The head of an open part.

    Args:
        file: Open for reading.
        path: The file's name, for messages.

    Raises:
        StorageError: If it is damaged.
    """
    begin = os.pread(file.fileno(), _ALIGNED, 0)
    length = int.from_bytes(begin, "little")
    if not 0 < length <= min(_MAX_HEAD, os.fstat(file.fileno()).st_size - _ALIGNED):
        raise StorageError(f"{path} is truncated, damaged, or no part of a harvest: it begins with {begin!r}")
    text = os.pread(file.fileno(), length, _ALIGNED)
    try:
        if not text.startswith(_BEGIN):
            raise ValueError(f"expected {_BEGIN!r}, found {text[: len(_BEGIN)]!r}")
        metadata, end = json.JSONDecoder().raw_decode(text.decode(), len(_BEGIN))
        ledger = metadata["ledger"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StorageError(
            f"{path} is no part of a harvest, or damaged: {type(error).__name__}: {reason(error)}"
        ) from error
    table = text[end:].removeprefix(_COMMA).rstrip(b" ")
    return Head(parse_object(ledger, Ledger, path), table, _ALIGNED + length)


def read_ledger(path: Path) -> Ledger:
    """The ledger of a part.

    Raises:
        StorageError: If the file cannot be read.
    """
    with reading(path) as file:
        return read_head(file, path).ledger
