"""Parts: what one worker has summed so far, and which batches that is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lit_attr.data.batch_ids import Ids, from_ranges
from lit_attr.errors import StorageError
from lit_attr.files.archive import layout, mapped
from lit_attr.files.publish import reading
from lit_attr.files.seal import check_open_seal, publish_sealed
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums

_FORMAT = 1


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
    """

    plan: str
    generation: int
    rank: int
    world_size: int
    batches: list[list[int]] = field(default_factory=list)
    n_tokens: int = 0
    started: float = 0.0
    committed: float = 0.0
    n_before: int = 0

    @property
    def ids(self) -> Ids:
        """The batches in it."""
        return from_ranges(self.batches)


def write_part(path: Path, sums: Sums, ledger: Ledger) -> None:
    """Publish a part; the one that was there stays until the new one is safe.

    Raises:
        StorageError: If it cannot be written.
    """
    content = {"format": _FORMAT, "ledger": json.dumps(asdict(ledger)), "sums": dict(sums.named())}
    publish_sealed(path, partial(torch.save, content), sums.nbytes)


def read_ledger(path: Path) -> Ledger:
    """The ledger of a part, without a look at the sums.

    Raises:
        StorageError: If the file cannot be read.
    """
    with reading(path) as file:
        return _ledger(_content(file, path), path)


def read_part(path: Path, topology: Topology) -> tuple[Sums, Ledger]:
    """A part, mapped read-only, after the whole file was compared with its seal.

    Its worker may publish another meanwhile: all that is returned is of the one file that was there first.

    Args:
        path: The part's file.
        topology: Decides which sums there must be.

    Raises:
        StorageError: If the file is missing, damaged, of another topology, or miscounts its tokens.
    """
    expected = dict(Sums.zeros(topology, torch.float64, "meta").named())
    with reading(path) as file:
        check_open_seal(file, path)
        content = _content(file, path)
        sums = content.get("sums")
        if not isinstance(sums, Mapping) or {k: (v.shape, v.dtype) for k, v in sums.items()} != {
            k: (v.shape, v.dtype) for k, v in expected.items()
        }:
            raise StorageError(f"{path}: its sums are not those of this harvest's model")
        part, ledger = Sums.from_named(topology, mapped(file, sums)), _ledger(content, path)
    counted = int(part.n_tokens), int(part.token_count.sum())
    if counted != (ledger.n_tokens, ledger.n_tokens):
        raise StorageError(
            f"{path}: its ledger has {ledger.n_tokens} tokens, its sums {counted[0]}, and one by one {counted[1]}"
        )
    return part, ledger


def _content(file: BinaryIO, path: Path) -> dict[str, Any]:
    try:
        content = layout(file)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise StorageError(f"cannot read {path}, which may be truncated or no part of a harvest: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise StorageError(f"{path} is no part of a harvest in format {_FORMAT}")
    return content


def _ledger(content: Mapping[str, Any], path: Path) -> Ledger:
    try:
        return Ledger(**json.loads(content["ledger"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: its ledger is damaged: {error!r}") from error
