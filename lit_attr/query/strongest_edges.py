"""The strongest edges of a stored harvest, found tile by tile in memory that does not grow with it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.query.tiles import rows_of_tiles, target_layers, tiles
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.strongest import NOT_FINITE
from lit_attr.topology.words import AttrMetric


@dataclass(frozen=True)
class Edges:
    """Edges into one layer.

    Attributes:
        source_layers: Names of layers.
        source_places: Which of these is the source's.
        sources: Components or token ids.
        target_layer: Of all targets.
        targets: Components or token ids.
        raw: Raw attributions.
        normalized: Normalised ones.
    """

    source_layers: Sequence[str]
    source_places: Int[Tensor, " edge"]
    sources: Int[Tensor, " edge"]
    target_layer: str
    targets: Int[Tensor, " edge"]
    raw: Float[Tensor, " edge"]
    normalized: Float[Tensor, " edge"]


def strongest_of_pairs(blocks: Blocks, metric: AttrMetric, k: int) -> Iterator[Edges]:
    """The edges with the largest normalised magnitudes between every two layers, pair by pair, best first.

    Args:
        blocks: Of the stored harvest.
        metric: `attr` or `attr_abs`.
        k: How many of a pair at most; edges that are zero are none.

    Raises:
        StorageError: If a value is not finite.
    """
    for target in target_layers(blocks):
        for source in blocks.source_layers(target, metric):
            n_sources, best = blocks.size(source), _Strongest(k)
            for rows in rows_of_tiles(blocks, [source], target):
                for columns, raw, normalized in tiles(blocks, source, target, metric, rows):
                    where = partial(_position, rows.start, columns, n_sources)
                    best.add(raw.reshape(1, -1), normalized.reshape(1, -1), where)
            _, position, raw, normalized = best.found()
            places = torch.zeros_like(position)
            yield Edges([source], places, position % n_sources, target, position // n_sources, raw, normalized)


def strongest_of_targets(
    blocks: Blocks, metric: AttrMetric, k: int, layers: Sequence[str] | None = None
) -> Iterator[Edges]:
    """The edges with the largest normalised magnitudes into every component and output token, best first.

    Args:
        blocks: Of the stored harvest.
        metric: `attr` or `attr_abs`.
        k: How many of a target at most; edges that are zero are none.
        layers: Of targets; all, the output included, if None.

    Yields:
        Those of some targets at a time.

    Raises:
        StorageError: If a value is not finite.
    """
    for target in target_layers(blocks) if layers is None else layers:
        fed_by = blocks.source_layers(target, metric)
        starts = torch.tensor([0, *(blocks.size(layer) for layer in fed_by)]).cumsum(0)
        for rows in rows_of_tiles(blocks, fed_by, target):
            best = _Strongest(k)
            for start, source in zip(starts.tolist(), fed_by, strict=False):  # the last one is the end
                for columns, raw, normalized in tiles(blocks, source, target, metric, rows):
                    best.add(raw, normalized, (start + columns).__getitem__)
            row, position, raw, normalized = best.found()
            places = torch.searchsorted(starts, position, right=True) - 1
            yield Edges(fed_by, places, position - starts[places], target, rows.start + row, raw, normalized)


# Positions of entries, by their places in a row of a tile.
_Where = Callable[[Int[Tensor, "row _entry"]], Int[Tensor, "row _entry"]]


def _position(first_row: int, columns: Tensor, n_columns: int, place: Tensor) -> Tensor:
    """Positions in a whole block of entries of a tile that is one row."""
    return (first_row + place // len(columns)) * n_columns + columns[place % len(columns)]


class _Strongest:
    """The entries of largest normalised magnitude of each row, best first, of rows that are seen piece by piece."""

    def __init__(self, k: int) -> None:
        self._k = k
        # Raw values, normalised values, positions.
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, raw: Float[Tensor, "row _entry"], normalized: Float[Tensor, "row _entry"], where: _Where) -> None:
        """See more entries of every row; `where` gives the positions of some by their places in the row."""
        best = self._best(normalized)
        # What is not a number counts as largest, so that this sees whatever is not finite.
        seen = raw.gather(1, best), normalized.gather(1, best), where(best)
        if not seen[1].isfinite().all():
            raise StorageError(NOT_FINITE)
        if self._kept is not None:
            both = [torch.cat(pair, 1) for pair in zip(self._kept, seen, strict=True)]
            best = self._best(both[1])
            seen = both[0].gather(1, best), both[1].gather(1, best), both[2].gather(1, best)
        self._kept = seen

    def _best(self, normalized: Float[Tensor, "row _entry"]) -> Int[Tensor, "row _best"]:
        return normalized.abs().topk(min(self._k, normalized.shape[1]), dim=1).indices

    def found(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Row, position, raw and normalised value of every entry that is not zero, row by row."""
        if self._kept is None:
            nothing = torch.empty(0)
            return nothing.long(), nothing.long(), nothing, nothing
        raw, normalized, positions = self._kept
        row, place = normalized.nonzero(as_tuple=True)
        return row, positions[row, place], raw[row, place], normalized[row, place]
