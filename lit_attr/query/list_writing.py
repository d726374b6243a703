"""Writing lists of the strongest edges of a result, tile by tile, in memory that does not grow with it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from lit_attr.query.index_lists import PAIRS, RANKINGS, KeyLists
from lit_attr.query.layer_pairs import layer_pairs
from lit_attr.query.running_lists import PairSummary, RunningLists, Totals
from lit_attr.query.tiles import Tile, parts, tiles
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.edge_errors import EdgeErrors
from lit_attr.storage.lists_file import Section
from lit_attr.topology.words import AttrMetric, Direction

_log = logging.getLogger(__name__)

# Keys of a tile, and their neighbours: a stretch of a row is some pages long, a tile 64 MB.
_N_KEYS, _N_NEIGHBOURS = 4096, 4096
# What a record holds of some keys, by name.
_Columns = dict[str, Shaped[Tensor, "key list *_k"]]


@dataclass
class Written:
    """What was written.

    Attributes:
        sections: Where the records are.
        keys: Name of a section to the places of the keys that have a record, ascending; only where those without edges
            have none.
        pairs: Source, target, metric, raw and normalised mass of each pair of layers.
    """

    sections: list[Section] = field(default_factory=list)
    keys: dict[str, Int[Tensor, " record"]] = field(default_factory=dict)
    pairs: list[list[Any]] = field(default_factory=list)


class ListWriter:
    """Writes lists of the strongest edges of a result into an open file.

    Args:
        blocks: Blocks of the result.
        file: Open at its end.
        k: Entries of a list.
        section: What a section is. Where its records say what was dropped, keys without edges have no record.
    """

    def __init__(self, blocks: Blocks, file: BinaryIO, k: int, section: type[Section]) -> None:
        self._blocks, self._file, self._k, self._section = blocks, file, k, section
        self._errors = EdgeErrors.of(blocks) if section.has_errors else None
        self._end = file.tell()
        stored = blocks.content.stored_sources, blocks.content.stored_targets
        self._summaries: dict[tuple[str, str, AttrMetric], PairSummary] = {
            (*pair, metric): PairSummary(len(stored[0](pair[0])), len(stored[1](pair[1])), k)
            for metric in blocks.content.metrics
            for pair in layer_pairs(blocks, metric)
        }
        self.written = Written()

    def write(self, lists: Sequence[KeyLists]) -> Written:
        """Write the lists of keys, and those of pairs of layers behind them.

        Args:
            lists: Which ones; those of targets contain each pair of layers once.

        Raises:
            StorageError: If a value is not finite.
        """
        for number, some in enumerate(lists, start=1):
            _log.info("%s (%d of %d)", some.name, number, len(lists))
            self._write_keys(some)
        largest = max((self._blocks.n_stored(*pair) for *pair, _ in self._summaries), default=0)
        section = self._section(PAIRS, self._end, len(self._summaries), len(RANKINGS), self._k, largest)
        for pair, summary in self._summaries.items():
            lists_of_pair = dict(zip(("position", "raw"), summary.lists(), strict=True))
            dropped = summary.dropped() if section.counts_dropped else None
            errors = self._errors_of_pair(pair, lists_of_pair["position"])
            columns = lists_of_pair | _named(dropped) | errors
            self._write_records(section, {name: part[None] for name, part in columns.items()})
        self._add(section)
        self.written.pairs = [
            [*pair, *(summary.mass(normalized=scaled) for scaled in (False, True))]
            for pair, summary in self._summaries.items()
        ]
        return self.written

    def _write_keys(self, lists: KeyLists) -> None:
        n_keys, n_neighbours = len(lists.edges.keys), len(lists.edges.neighbours)
        section = self._section(lists.name, self._end, 0, lists.n_lists, min(self._k, n_neighbours), n_neighbours)
        keys = [torch.empty(0, dtype=torch.int64)]
        for some in parts(n_keys, _N_KEYS):
            by_metric = [self._strongest(lists, metric, some, section) for metric in lists.metrics]
            columns = {name: torch.cat([columns[name] for columns in by_metric], 1) for name in by_metric[0]}
            if section.counts_dropped:
                has_edges = (columns["position"] >= 0).any(2).any(1)
                columns = {name: values[has_edges] for name, values in columns.items()}
                keys.append(some.start + has_edges.nonzero()[:, 0])
            section = replace(section, n_records=section.n_records + len(columns["position"]))
            self._write_records(section, columns)
        self._add(section)
        if section.counts_dropped:
            self.written.keys[lists.name] = torch.cat(keys)

    def _strongest(self, lists: KeyLists, metric: AttrMetric, keys: slice, section: Section) -> _Columns:
        """The lists of some keys; what is seen of pairs of layers on the way is noted."""
        n_keys = keys.stop - keys.start
        running, totals = RunningLists(n_keys, section.k), Totals.zeros(n_keys)
        for tile in tiles(self._blocks, lists.edges, metric, keys, _N_NEIGHBOURS):
            self._see(tile, lists.edges.direction, metric, totals)
            running.add(tile.raw, tile.normalized, tile.neighbours)
            del tile  # before the next one is made
        dropped = totals.less(running.totals()) if section.counts_dropped else None
        columns = dict(zip(("position", "raw"), running.lists(), strict=True))
        return columns | _named(dropped) | self._errors_of_keys(lists, metric, keys, columns["position"])

    def _errors_of_keys(
        self, lists: KeyLists, metric: AttrMetric, keys: slice, positions: Int[Tensor, "key list k"]
    ) -> _Columns:
        """The stored standard errors of what is listed, as bits; nothing where records have none."""
        if self._errors is None:
            return {}
        errors = torch.zeros(positions.shape)
        neighbours = lists.edges.neighbours
        of_layer = torch.from_numpy(np.searchsorted(neighbours.starts, positions.numpy(), side="right")) - 1
        for number, layer in enumerate(neighbours.layers):
            mask = (positions >= 0) & (of_layer == number)
            places = positions[mask] - int(neighbours.starts[number])
            of_keys = keys.start + mask.nonzero()[:, 0]
            ends = (of_keys, places) if lists.edges.direction == "targets" else (places, of_keys)
            errors[mask] = self._errors.stored(*lists.edges.pair(layer), metric, *ends)
        return {"error": _bits(errors)}

    def _errors_of_pair(self, pair: tuple[str, str, AttrMetric], positions: Int[Tensor, "list k"]) -> _Columns:
        """Stored standard errors of the listed edges between two layers, likewise."""
        if self._errors is None:
            return {}
        source, target, metric = pair
        errors, mask = torch.zeros(positions.shape), positions >= 0
        n_sources = len(self._blocks.content.stored_sources(source))
        places = positions[mask]
        errors[mask] = self._errors.stored(source, target, metric, places % n_sources, places // n_sources)
        return {"error": _bits(errors)}

    def _see(self, tile: Tile, direction: Direction, metric: AttrMetric, totals: Totals) -> None:
        for piece in tile.pieces:
            part = tile.raw[:, piece.columns], tile.normalized[:, piece.columns]
            some = Totals.of(*part) if self._section.counts_dropped else None
            if some is not None:
                totals.add_(some)
            if direction == "targets":
                summary = self._summaries[tile.edges.layer, piece.layer, metric]
                summary.add(*part, tile.keys.start, piece.part.start)
                if some is not None:
                    summary.totals.add_(Totals(some.n.sum(0), some.mass.sum(0)))

    def _write_records(self, section: Section, columns: _Columns) -> None:
        self._file.write(section.encode({name: values.numpy() for name, values in columns.items()}))

    def _add(self, section: Section) -> None:
        self.written.sections.append(section)
        self._end += section.nbytes


def _named(dropped: Totals | None) -> _Columns:
    return {} if dropped is None else {"n_dropped": dropped.n, "mass_dropped": dropped.mass}


def _bits(errors: Float[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """The bits that numbers have as bfloat16."""
    return errors.bfloat16().view(torch.uint16)
