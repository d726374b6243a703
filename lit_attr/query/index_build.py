"""Building the index of a stored harvest, tile by tile, in memory that does not grow with it."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.files.publish import publish
from lit_attr.query.index_file import Section, identity, index_path, write_contents
from lit_attr.query.lists import PAIRS, Family, families, layer_pairs
from lit_attr.query.tops import PairSummary, RunningTops
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import METRICS, AttrMetric

_log = logging.getLogger(__name__)

# Entries of a list.
N_KEPT = 64
# Keys of a tile, and their neighbours: a stretch of a row is some pages long, a tile 64 MB.
_N_KEYS, _N_NEIGHBOURS = 4096, 4096


def build_index(storage: Path) -> Path:
    """Write the index of a stored harvest beside it.

    Args:
        storage: The stored harvest's file.

    Returns:
        The index's file.

    Raises:
        StorageError: If the harvest is damaged, has values that are not finite, or was changed meanwhile, or the
            index cannot be written.
    """
    known = identity(storage)
    blocks = Blocks(DatasetAttributionStorage.load(storage))
    odd = [n for n, t in blocks.content.named_sums() if t.is_floating_point() and t.dtype != torch.float32]
    if odd:
        raise StorageError(f"{storage}: only sums in float32 can be indexed, which {odd[0]} is not")
    path = index_path(storage)
    try:
        publish(path, partial(_write, blocks, known))
    except StorageError as error:
        raise StorageError(f"no index of {storage}: {error}") from error
    if identity(storage) != known:
        path.unlink()
        raise StorageError(f"{storage} was changed while its index was built")
    return path


def _write(blocks: Blocks, known: dict, file: BinaryIO) -> None:
    sections, end = [], 0
    summaries = {
        (*pair, metric): PairSummary(blocks.size(pair[0]), N_KEPT)
        for metric in METRICS
        for pair in layer_pairs(blocks, metric)
    }
    todo = list(families(blocks))
    for number, family in enumerate(todo, start=1):
        _log.info("%s (%d of %d)", family.name, number, len(todo))
        k = min(N_KEPT, family.n_neighbours)
        section = Section(family.name, end, family.n_keys, family.n_lists, k, family.n_neighbours)
        for first in range(0, family.n_keys, _N_KEYS):
            keys = slice(first, min(first + _N_KEYS, family.n_keys))
            lists = [_lists(blocks, family, metric, keys, k, summaries) for metric in family.metrics]
            positions, raw = (torch.cat(parts, 1).numpy() for parts in zip(*lists, strict=True))
            file.write(section.encode(positions, raw))
        sections.append(section)
        end += section.nbytes
    largest = max((blocks.size(source) * blocks.size(target) for source, target, _ in summaries), default=0)
    section = Section(PAIRS, end, len(summaries), 4, N_KEPT, largest)
    for summary in summaries.values():
        positions, raw = (part[None].numpy() for part in summary.lists())
        file.write(section.encode(positions, raw))
    masses = [[*pair, *summary.mass] for pair, summary in summaries.items()]
    write_contents(file, {"storage": known, "pairs": masses}, [*sections, section])


def _lists(
    blocks: Blocks, family: Family, metric: AttrMetric, keys: slice, k: int, summaries: dict
) -> tuple[Int[Tensor, "key 4 _k"], Float[Tensor, "key 4 _k"]]:
    """The lists of some keys of a family; what is seen of pairs of layers on the way is noted."""
    tops = RunningTops(keys.stop - keys.start, k)
    for pieces in _groups(family):
        width = sum(piece.part.stop - piece.part.start for piece in pieces)
        raw, normalized = torch.empty(2, keys.stop - keys.start, width)
        end = 0
        for piece in pieces:
            begin, end = end, end + piece.part.stop - piece.part.start
            part = raw[:, begin:end], normalized[:, begin:end]
            _read(blocks, family, metric, keys, piece, *part)
            if family.direction == "targets":
                summaries[family.layer, piece.layer, metric].add(*part, keys.start, piece.part.start)
        positions = torch.cat([torch.arange(piece.part.start, piece.part.stop) + piece.start for piece in pieces])
        tops.add(raw, normalized, positions)
    return tops.lists()


def _read(
    blocks: Blocks,
    family: Family,
    metric: AttrMetric,
    keys: slice,
    piece: "_Piece",
    raw: Float[Tensor, "key _neighbour"],
    normalized: Float[Tensor, "key _neighbour"],
) -> None:
    """Fill in a tile; its numbers are exactly those of questions that are answered without an index."""
    if family.direction == "targets":
        raw, normalized, places = raw.T, normalized.T, (keys, piece.part)
    else:
        places = (piece.part, keys)
    pair = family.pair(piece.layer)
    raw.copy_(blocks.tile(*pair, Measure(metric, normalized=False), *places))
    blocks.normalized(raw, *pair, *places, out=normalized)


@dataclass(frozen=True)
class _Piece:
    """A part of a layer of neighbours; `start` is where the layer starts in the family's positions."""

    layer: str
    part: slice
    start: int


def _groups(family: Family) -> Iterator[list[_Piece]]:
    """All neighbours in groups: long rows are ranked several times as fast, number for number."""
    group: list[_Piece] = []
    room, start = _N_NEIGHBOURS, 0
    for layer, size in family.neighbours:
        first = 0
        while first < size:
            stop = min(first + room, size)
            group.append(_Piece(layer, slice(first, stop), start))
            room -= stop - first
            first = stop
            if not room:
                yield group
                group, room = [], _N_NEIGHBOURS
        start += size
    if group:
        yield group
