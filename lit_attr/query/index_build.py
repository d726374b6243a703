"""Building the index of a result, tile by tile, in memory that does not grow with it."""

import logging
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.files.output import write_file
from lit_attr.query.index_file import INDEX, Section, identity, index_path, write_contents, write_mark
from lit_attr.query.index_lists import PAIRS, RANKINGS, all_key_lists
from lit_attr.query.layer_pairs import layer_pairs
from lit_attr.query.running_lists import PairSummary, RunningLists
from lit_attr.query.tiles import LayerEdges, Tile, parts, tiles
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.words import AttrMetric

_log = logging.getLogger(__name__)

# Entries of a list.
N_KEPT = 64
# Keys of a tile, and their neighbours: a stretch of a row is some pages long, a tile 64 MB.
_N_KEYS, _N_NEIGHBOURS = 4096, 4096


def build_index(storage: Path) -> Path:
    """Write the index of a result beside it.

    Args:
        storage: The result's file.

    Returns:
        The index's file.

    Raises:
        StorageError: If the result is damaged, has values that are not finite, or was changed meanwhile, or the
            index cannot be written, or something that is no index has its name.
    """
    known = identity(storage)
    blocks = Blocks(DatasetAttributionStorage.load(storage))
    odd = [n for n, t in blocks.content.named_sums() if t.is_floating_point() and t.dtype != torch.float32]
    if odd:
        raise StorageError(f"{storage}: only sums in float32 can be indexed, which {odd[0]} is not")
    path = index_path(storage)
    try:
        write_file(path, partial(_write, blocks, known), INDEX, overwrite=True)
    except StorageError as error:
        raise StorageError(f"no index of {storage}: {error}") from error
    if identity(storage) != known:
        path.unlink()
        raise StorageError(f"{storage} was changed while its index was built")
    return path


def _write(blocks: Blocks, known: dict, file: BinaryIO) -> None:
    sections, end, content = [], write_mark(file), blocks.content
    summaries = {
        (*pair, metric): PairSummary(len(content.stored_sources(pair[0])), len(content.stored_targets(pair[1])), N_KEPT)
        for metric in content.metrics
        for pair in layer_pairs(blocks, metric)
    }
    todo = list(all_key_lists(blocks))
    for number, lists in enumerate(todo, start=1):
        _log.info("%s (%d of %d)", lists.name, number, len(todo))
        n_keys, n_neighbours = len(lists.edges.keys), len(lists.edges.neighbours)
        k = min(N_KEPT, n_neighbours)
        section = Section(lists.name, end, n_keys, lists.n_lists, k, n_neighbours)
        for keys in parts(n_keys, _N_KEYS):
            of_metrics = [_lists(blocks, lists.edges, metric, keys, k, summaries) for metric in lists.metrics]
            positions, raw = (torch.cat(of_metric, 1).numpy() for of_metric in zip(*of_metrics, strict=True))
            file.write(section.encode(positions, raw))
        sections.append(section)
        end += section.nbytes
    largest = max((blocks.n_stored(source, target) for source, target, _ in summaries), default=0)
    section = Section(PAIRS, end, len(summaries), len(RANKINGS), N_KEPT, largest)
    for summary in summaries.values():
        positions, raw = (part[None].numpy() for part in summary.lists())
        file.write(section.encode(positions, raw))
    masses = [[*pair, *(one.mass(normalized=scaled) for scaled in (False, True))] for pair, one in summaries.items()]
    write_contents(file, {"storage": known, "metrics": content.metrics, "pairs": masses}, [*sections, section])


def _lists(
    blocks: Blocks, edges: LayerEdges, metric: AttrMetric, keys: slice, k: int, summaries: dict
) -> tuple[Int[Tensor, "key list _k"], Float[Tensor, "key list _k"]]:
    """The lists of some keys; what is seen of pairs of layers on the way is noted."""
    lists = RunningLists(keys.stop - keys.start, k)
    for tile in tiles(blocks, edges, metric, keys, _N_NEIGHBOURS):
        if edges.direction == "targets":
            _note(tile, metric, summaries)
        lists.add(tile.raw, tile.normalized, tile.neighbours)
        del tile  # before the next one is made
    return lists.lists()


def _note(tile: Tile, metric: AttrMetric, summaries: dict) -> None:
    for piece in tile.pieces:
        part = tile.raw[:, piece.columns], tile.normalized[:, piece.columns]
        summaries[tile.edges.layer, piece.layer, metric].add(*part, tile.keys.start, piece.part.start)
