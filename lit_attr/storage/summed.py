"""How the tensors of a result come from the sums of parts: aligned, added, multiplied with read vectors, or scaled."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import NumericalError, few
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.live import LiveSet
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums, row_counts
from lit_attr.topology.tables import Table

# Numbers of a tile: 64 MB in float64, and as much again for what it is added from.
TILE = 1 << 23
_ALL = slice(None)
# Places of sources: those that follow each other, or any.
Piece = slice | Tensor


@dataclass(frozen=True)
class SummedVector:
    """A tensor of one axis, or of none, as the sum of those of parts.

    Attributes:
        parts: Name of a part to its sums.
    """

    parts: Mapping[str, Float[Tensor, "..."]]

    @property
    def shape(self) -> torch.Size:
        """Shape in the result."""
        return next(iter(self.parts.values())).shape

    @property
    def dtype(self) -> torch.dtype:
        """Type of the sums."""
        return next(iter(self.parts.values())).dtype

    def tiles(self) -> Iterator[tuple[int, Tensor]]:
        """The tensor in pieces, as `SummedEdges.tiles`."""
        for start in range(0, self.shape.numel(), TILE):
            yield start, _sum([part.view(-1)[start : start + TILE] for part in self.parts.values()])[None]

    def by_part(self) -> Iterator[tuple[str, Float[Tensor, "..."]]]:
        """Name of each part, and its sums."""
        yield from self.parts.items()


@dataclass(frozen=True)
class SummedEdges:
    """The edges between two layers, as the sum of the tables of parts.

    Attributes:
        parts: Name of a part to its table, which has a row for each source.
        columns: Name of a part to the places of its columns among `targets`; None where they are not those of targets,
            but of the input that targets read.
        sources: The sources that any part has, and their number in the layer.
        targets: The targets likewise.
        vectors: What columns of an input are multiplied with; None where they are those of targets.
        factor: What sums are multiplied with.
        is_dense: Whether the result has a place for every source and target, and not only for those that any part has.
        dtype: Type of the sums.
    """

    parts: Mapping[str, Table]
    columns: Mapping[str, Int[Tensor, " column"]] | None
    sources: LiveSet
    targets: LiveSet
    vectors: Callable[[], Float[Tensor, "width target"]] | None
    factor: float
    is_dense: bool
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        """Shape in the result, where edges have a row for each target."""
        return torch.Size([axis.n_all if self.is_dense else len(axis) for axis in (self.targets, self.sources)])

    def by_part(self) -> Iterator[tuple[str, Float[Tensor, "row column"]]]:
        """Name of each part, and its sums."""
        for name, table in self.parts.items():
            yield name, table.numbers

    def tiles(self) -> Iterator[tuple[int, Float[Tensor, "row column"]]]:
        """The finished tensor in pieces: where each begins in it, row by row, and stretches of its rows."""
        if not self.parts:
            return
        n_sources, n_targets = len(self.sources), len(self.targets)
        width = max([n_targets, *(table.width for table in self.parts.values())])
        step = max(TILE // max(width, 1), 1)
        for start in range(0, n_sources if n_targets else 0, step):
            stop = min(start + step, n_sources)
            tile = self._finished(slice(start, stop)).T
            first, spread = (start, [(0, tile)]) if not self.is_dense else self._spread(tile, start)
            for row, rows in spread:
                place, joined = row * self.shape[1] + first, rows.contiguous()
                yield place, joined.view(1, -1) if joined.shape[1] == self.shape[1] else joined

    def _spread(
        self, tile: Float[Tensor, "target source"], start: int
    ) -> tuple[int, Iterable[tuple[int, Float[Tensor, "_row column"]]]]:
        """A tile with places for what no part has.

        Args:
            tile: All targets and some sources.
            start: The first of these.

        Returns:
            Column of the first source, and rows from each of some rows on.
        """
        columns = self.sources.indices(torch.arange(start, start + tile.shape[1]))
        first, n_columns = int(columns[0]), int(columns[-1] - columns[0]) + 1
        if len(self.targets) == self.targets.n_all and n_columns == len(columns):
            return first, [(0, tile)]
        targets = self.targets.indices(torch.arange(len(self.targets)))

        def pieces() -> Iterator[tuple[int, Tensor]]:
            n_all, step = self.targets.n_all, max(TILE // n_columns, 1)
            for row in range(0, n_all, step):
                stop = min(row + step, n_all)
                begin, end = torch.searchsorted(targets, torch.tensor([row, stop])).tolist()
                if end > begin:  # elsewhere the file has zeros already
                    spread = tile.new_zeros(stop - row, n_columns)
                    spread[(targets[begin:end] - row)[:, None], columns - first] = tile[begin:end]
                    yield row, spread

        return first, pieces()

    def part(self, targets: slice, sources: Piece) -> Float[Tensor, "_target _source"]:
        """Finished sums of some edges, given by the places of those that any part has.

        Args:
            targets: Places of targets, or dimensions of the residual stream.
            sources: Places of sources.
        """
        if not self.parts:
            return torch.zeros(len(self.targets), len(self.sources), dtype=self.dtype)[targets, sources]
        return self._finished(sources, targets).T

    def at(self, targets: Int[Tensor, " edge"], sources: Int[Tensor, " edge"]) -> Float[Tensor, " edge"]:
        """Finished sums of single edges, given by their places.

        Args:
            targets: Place of the target of each edge.
            sources: Place of its source.
        """
        total = torch.zeros(len(targets), dtype=self.dtype)
        for name, table in self.parts.items():
            rows, columns = torch.from_numpy(self._places[name])[sources], targets
            if self.columns is not None:
                column_of = torch.full((len(self.targets),), -1)
                column_of[self.columns[name]] = torch.arange(len(self.columns[name]))
                columns = column_of[targets]
            there = ((rows >= 0) & (columns >= 0)).nonzero()[:, 0]
            rows, columns = rows[there], columns[there]
            if self._read is None:
                total[there] += table.numbers[rows, columns]
            else:
                numbers = table.numbers[rows].to(self._read.dtype)
                total[there] += (numbers * self._read[:, columns].T).sum(1).to(self.dtype)
        return total * self.factor

    def _finished(self, piece: Piece, targets: slice = _ALL) -> Float[Tensor, "source target"]:
        """What the sums of some of the sources become, for some of the targets."""
        if self.columns is None:
            total = _sum([self._rows(name, piece) for name in self.parts])
            return total[:, targets] if self._read is None else total.to(self._read.dtype) @ self._read[:, targets]
        total = torch.zeros(len(self.sources.all_indices[piece]), len(self.targets), dtype=self.dtype)
        for name, columns in self.columns.items():
            if len(columns) == len(self.targets):
                total += self._rows(name, piece)
            else:
                total.index_add_(1, columns, self._rows(name, piece).to(total.dtype))
        total = total[:, targets]
        return total if self.factor == 1 else total * self.factor

    @cached_property
    def _read(self) -> Float[Tensor, "width target"] | None:
        return None if self.vectors is None else self.vectors()

    @cached_property
    def _places(self) -> dict[str, Int[np.ndarray, " source"]]:
        """The row that each source has in each part; -1 where it has none."""
        ids = self.sources.indices(torch.arange(len(self.sources))).numpy()
        return {name: table.live.row_of[ids] for name, table in self.parts.items()}

    def _rows(self, name: str, piece: Piece) -> Float[Tensor, "source width"]:
        """A part's rows of some of the sources, zero for those that it has not."""
        places, numbers = self._places[name][piece], self.parts[name].numbers
        if len(places) and places[0] >= 0 and (np.diff(places) == 1).all():  # as they lie there
            return numbers[places[0] : places[-1] + 1]
        there = torch.from_numpy(np.flatnonzero(places >= 0))
        rows = numbers.new_zeros(len(places), numbers.shape[1])
        rows[there] = numbers[torch.from_numpy(places[places >= 0])]
        return rows


Summed = SummedVector | SummedEdges


class Tiled(Protocol):
    """A tensor of a result that comes from parts."""

    @property
    def parts(self) -> Mapping[str, Any]:
        """Its parts by name."""

    def by_part(self) -> Iterator[tuple[str, Tensor]]:
        """Name of each part, and its sums."""

    def tiles(self) -> Iterator[tuple[int, Tensor]]:
        """The tensor in pieces; see `SummedEdges.tiles`."""


def live_sources(parts: Collection[Sums]) -> dict[str, Int[Tensor, " live"]]:
    """Source layer to the sources that occur in any part, ascending; also where they feed nothing that is a target."""
    live = {}
    for layer, n_all in row_counts(next(iter(parts)).layout).items():
        is_live = np.zeros(n_all, dtype=bool)
        for part in parts:
            is_live[part.live[layer].ids] = True
            is_live |= ((part.token_count if layer == EMBED else part.ci[layer]) != 0).numpy()
        live[layer] = torch.from_numpy(np.flatnonzero(is_live))
    return live


def live_targets(parts: Collection[Sums], read: ReadVectors) -> dict[str, Int[Tensor, " live"]]:
    """Layer of components to those that are targets, ascending."""
    topology = next(iter(parts)).layout.topology
    return {layer: read.alive[layer].nonzero()[:, 0] for layer in topology.component_targets}


def summed_tensors(
    parts: Mapping[str, Sums],
    normalising: Sequence[str],
    read: ReadVectors,
    d_model: int,
    *,
    is_dense: bool,
) -> dict[str, Any]:
    """The tensors that add up over tokens, nested as in `Content`.

    Where `attr_abs` is of a share of the sequences, its sums are multiplied with the number of all tokens over that of
    theirs.

    Args:
        parts: Sums by name.
        normalising: Names of the parts whose normalisers count.
        read: Read vectors of the model.
        d_model: Width of the residual stream.
        is_dense: Whether there are places for sources and targets that no part has.
    """
    first, counted = next(iter(parts.values())), [parts[name] for name in normalising]
    topology, live, counts = first.layout.topology, live_sources(parts.values()), row_counts(first.layout)
    sources = {layer: LiveSet(counts[layer], ids) for layer, ids in live.items()}
    targets = {
        layer: LiveSet(topology.n_components[layer], ids) for layer, ids in live_targets(parts.values(), read).items()
    }
    dtype = first.logit_sq.dtype
    n_tokens, n_abs_tokens = (
        sum(int(sums.n_tokens) for sums in counted),
        sum(int(sums.n_abs_tokens) for sums in counted),
    )
    abs_factor = n_tokens / n_abs_tokens if n_abs_tokens else 1.0

    def attr(target: str) -> dict[str, Summed]:
        name = topology.inputs[target]
        of_targets = None if target == OUTPUT else partial(read.of_targets, target)
        axis = LiveSet(d_model) if target == OUTPUT else targets[target]
        return {
            source: SummedEdges(
                {part: sums.attr[name][source] for part, sums in parts.items() if name in sums.attr},
                *(None, sources[source], axis, of_targets, 1.0, is_dense, dtype),
            )
            for source in topology.sources[target]
        }

    def attr_abs(target: str) -> dict[str, Summed]:
        ids = targets[target].indices(torch.arange(len(targets[target])))
        columns = {
            part: torch.searchsorted(ids, sums.layout.targets[target])
            for part, sums in parts.items()
            if sums.attr_abs and len(sums.layout.targets[target])
        }
        return {
            source: SummedEdges(
                {part: parts[part].attr_abs[target][source] for part in columns},
                *(columns, sources[source], targets[target], None, abs_factor, is_dense, dtype),
            )
            for source in topology.sources[target]
        }

    def of_components(by_target: Mapping[str, Mapping[str, Summed]]) -> dict[str, dict[str, Summed]]:
        return {t: {s: block for s, block in by_source.items() if s != EMBED} for t, by_source in by_target.items()}

    def of_tokens(by_target: Mapping[str, Mapping[str, Summed]]) -> dict[str, Summed]:
        return {t: by_source[EMBED] for t, by_source in by_target.items() if EMBED in by_source}

    def vectors(get: Callable[[Sums], Tensor]) -> SummedVector:
        return SummedVector({name: get(parts[name]) for name in normalising})

    names = topology.component_targets
    signed = {target: attr(target) for target in names}
    absolute = {target: attr_abs(target) for target in names if any(part.attr_abs for part in parts.values())}
    into_output = attr(OUTPUT) if OUTPUT in topology.sources else {}
    tokens = sources.get(EMBED, LiveSet(topology.vocab_size, torch.zeros(0, dtype=torch.int64)))
    nothing = SummedEdges({}, None, tokens, LiveSet(d_model), None, 1.0, is_dense=is_dense, dtype=dtype)
    return {
        "regular_attr": of_components(signed),
        "regular_attr_abs": of_components(absolute),
        "embed_attr": of_tokens(signed),
        "embed_attr_abs": of_tokens(absolute),
        "unembed_attr": {source: block for source, block in into_output.items() if source != EMBED},
        "embed_unembed_attr": into_output.get(EMBED, nothing),
        "ci_sum": {layer: vectors(partial(_ci, layer)) for layer in first.ci},
        "component_act_sq_sum": {layer: vectors(partial(_act_sq, layer)) for layer in first.act_sq},
        "logit_sq_sum": vectors(attrgetter("logit_sq")),
        "embed_token_count": vectors(attrgetter("token_count")),
    }


def measured(parts: Mapping[str, Sums], normalising: Sequence[str]) -> Mapping[str, Sums]:
    """Parts without `attr_abs` where it is of a share of the sequences, and none of theirs belongs to it.

    Args:
        parts: Sums by name.
        normalising: Names of the parts whose normalisers count.
    """
    has_abs = any(int(parts[name].n_abs_tokens) for name in normalising)
    return parts if has_abs else {name: part.signed() for name, part in parts.items()}


def whole(summed: Summed) -> Tensor:
    """A tensor as it is in the result, in the precision of the sums."""
    tensor = torch.zeros(summed.shape, dtype=summed.dtype)
    for start, tile in summed.tiles():
        for number, row in enumerate(tile):
            place = start + number * summed.shape[-1]
            tensor.view(-1)[place : place + len(row)] = row
    return tensor


def is_finite(tile: Tensor) -> bool:
    """Whether all numbers are finite, in one pass without a temporary: NaN is the least and greatest of all."""
    return not tile.is_floating_point() or not tile.numel() or bool(torch.stack(tile.aminmax()).isfinite().all())


def not_finite(name: str, summed: Tiled) -> NumericalError:
    """What is wrong with a sum, and whose fault it is.

    Args:
        name: Name of the tensor in the result.
        summed: Its parts.
    """
    for part, numbers in summed.by_part():
        if not all(is_finite(rows) for rows in numbers.split(max(TILE // max(numbers[:1].numel(), 1), 1))):
            return NumericalError(
                f"{part}: {name} has values that are not finite (NaN or infinite). A result without them needs its "
                "batches harvested again, in a new harvest, or after that part was deleted"
            )
    parts = few(list(summed.parts))
    return NumericalError(f"{name}: the sum of {parts} is too large for float32 (or bfloat16), in which results are")


def map_nested(nested: Mapping[str, Any], function: Callable[[Summed], Any]) -> dict[str, Any]:
    """Another mapping of the same nesting."""
    return {
        key: map_nested(value, function) if isinstance(value, Mapping) else function(value)
        for key, value in nested.items()
    }


def _ci(layer: str, sums: Sums) -> Tensor:
    return sums.ci[layer]


def _act_sq(layer: str, sums: Sums) -> Tensor:
    return sums.act_sq[layer]


def _sum(pieces: Sequence[Tensor]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0]
    total = pieces[0] + pieces[1]
    for piece in pieces[2:]:
        total += piece
    return total
