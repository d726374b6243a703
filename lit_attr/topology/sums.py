"""Raw sums of attributions and normalisers, before they become a result."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.topology.address import EMBED
from lit_attr.topology.layout import Layout
from lit_attr.topology.squares import Squares
from lit_attr.topology.tables import LiveRows, Table, zeros

# Elements that one chunk of an addition converts: bounds its temporary, 32 MiB in float64.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Sums:
    """Sums over tokens, to be updated in place.

    A target's activation is linear in its input: y = V . x. Sums of `attr` are therefore kept in *read space*: what
    each source adds to x, which serves all targets that read x. Their read vectors meet it when a result is written;
    see `ReadVectors`. The sign in `attr_abs` stands between source and target, so that every target has sums of its
    own.

    Sources are rows everywhere, and only those that were active: a component whose causal importance was zero at every
    position so far, or a token that did not occur, would have a row of zeros.

    Attributes:
        layout: Which sums these are.
        live: Source layer, or `embed`, to its sources that have a row.
        attr: Name of an input (see `Topology.inputs`) to source layer to sums, source by width of the input.
        attr_abs: Target layer to source layer to sums, source by target of `layout`; empty where they are not
            harvested.
        ci: Layer to sums of causal importances.
        act_sq: Layer to sums of squared component activations; zero for layers that are no targets.
        logit_sq: Sums of squared logits.
        token_count: Occurrences of each token id.
        n_tokens: Number of tokens.
        n_abs_tokens: Number of tokens over which `attr_abs` is summed.
        squares: What standard errors come from; None where the layout has none, and in the sums of a group.
    """

    layout: Layout
    live: dict[str, LiveRows]
    attr: dict[str, dict[str, Table]]
    attr_abs: dict[str, dict[str, Table]]
    ci: dict[str, Float[Tensor, " _component"]]
    act_sq: dict[str, Float[Tensor, " _component"]]
    logit_sq: Float[Tensor, " vocab"]
    token_count: Int[Tensor, " vocab"]
    n_tokens: Int[Tensor, ""]
    n_abs_tokens: Int[Tensor, ""]
    squares: Squares | None = None

    @classmethod
    def zeros(
        cls,
        layout: Layout,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        live: dict[str, LiveRows] | None = None,
        *,
        with_squares: bool = True,
    ) -> "Sums":
        """Sums of nothing.

        Args:
            layout: Decides names and shapes.
            dtype: Floating-point type of the sums; counts are int64.
            device: Device that keeps them.
            live: The sources that have a row, which is shared with whoever else has it; by default none yet.
            with_squares: Whether squares are kept, where the layout has any.
        """
        topology = layout.topology
        rows = no_rows(layout) if live is None else live

        def tables(sources: tuple[str, ...], width: int) -> dict[str, Table]:
            return {source: Table(rows[source], width, dtype, device) for source in sources}

        def vector(length: int) -> Tensor:
            return zeros((length,), dtype, device)

        return cls(
            layout=layout,
            live=rows,
            attr={
                name: tables(topology.sources[topology.readers[name][0]], topology.widths[name])
                for name in layout.inputs
            },
            attr_abs={target: tables(topology.sources[target], len(ids)) for target, ids in layout.targets.items()},
            ci={layer: vector(n) for layer, n in topology.n_components.items()},
            act_sq={layer: vector(n) for layer, n in topology.n_components.items()},
            logit_sq=vector(topology.vocab_size),
            token_count=zeros((topology.vocab_size,), torch.int64, device),
            n_tokens=zeros((), torch.int64, device),
            n_abs_tokens=zeros((), torch.int64, device),
            squares=Squares.zeros(layout, dtype, device, rows) if with_squares and layout.squares_dtype else None,
        )

    @classmethod
    def from_named(
        cls, layout: Layout, live: Mapping[str, Int[np.ndarray, " _live"]], tensors: Mapping[str, Tensor]
    ) -> "Sums":
        """Sums made of the tensors that `named` gives.

        Args:
            layout: Decides names.
            live: Source layer to its sources in the order of their rows.
            tensors: Name to tensor, of the shapes that follow.
        """
        counts = row_counts(layout)
        rows = {layer: LiveRows(counts[layer], ids) for layer, ids in live.items()}
        sums = cls.zeros(layout, torch.float64, "meta", rows)
        for name, table in sums.tables():
            table.replace(tensors[name])
        rest = _exchanged(sums, ("ci", "act_sq", "logit_sq", "token_count", "n_tokens", "n_abs_tokens"), tensors)
        if sums.squares is None:
            return replace(sums, **rest)
        weights = "weight_sq", "abs_weight", "abs_weight_sq", "block_weight", "n_groups", "n_abs_groups"
        return replace(sums, **rest, squares=replace(sums.squares, **_exchanged(sums.squares, weights, tensors)))

    def tables(self) -> Iterator[tuple[str, Table]]:
        """The tables with unique names, in a fixed order, those of squares last."""
        yield from self.edges()
        if self.squares is not None:
            yield from self.squares.tables()

    def edges(self) -> Iterator[tuple[str, Table]]:
        """The tables of attributions with unique names, in a fixed order."""
        for metric, nested in (("attr", self.attr), ("attr_abs", self.attr_abs)):
            for target, by_source in nested.items():
                for source, table in by_source.items():
                    yield f"{metric}/{source}->{target}", table

    def normalisers(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are no tables, with unique names, in a fixed order, those of squares last."""
        for name, by_layer in (("ci", self.ci), ("act_sq", self.act_sq)):
            for layer, tensor in by_layer.items():
                yield f"{name}/{layer}", tensor
        yield "logit_sq", self.logit_sq
        yield "token_count", self.token_count
        yield "n_tokens", self.n_tokens
        yield "n_abs_tokens", self.n_abs_tokens
        if self.squares is not None:
            yield from self.squares.weights()

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors with unique names, in a fixed order; tables as they are until another source gets a row."""
        for name, table in self.tables():
            yield name, table.numbers
        yield from self.normalisers()

    def rows(self, sources: Mapping[str, Int[np.ndarray, " _source"]]) -> dict[str, Int[Tensor, " _source"] | None]:
        """The rows of some sources; those that have none get one.

        Args:
            sources: Source layer, or `embed`, to components, or token ids, each once, on the host.

        Returns:
            Layer to rows, on the device of the sums; None for all rows in their order.
        """
        rows = {layer: self.live[layer].rows(ids) for layer, ids in sources.items()}
        some = {
            layer: found
            for layer, found in rows.items()
            if len(found) < len(self.live[layer]) or (found != np.arange(len(found))).any()
        }
        if not some:
            return dict.fromkeys(rows)
        joined = torch.from_numpy(np.concatenate(list(some.values()))).to(self.logit_sq.device)
        pieces = dict(zip(some, joined.split([len(found) for found in some.values()]), strict=True))
        return {layer: pieces.get(layer) for layer in rows}

    def signed(self) -> "Sums":
        """These sums without `attr_abs`: what is added to them is added to these."""
        return replace(self, attr_abs={})

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.nbytes for _, tensor in self.named())

    @property
    def n_rows(self) -> int:
        """Number of sources that have a row."""
        return sum(map(len, self.live.values()))

    def add_(self, other: "Sums") -> None:
        """Add other sums of the same layout, whatever their dtype, device and order of rows, in bounded memory."""
        rows = {layer: torch.from_numpy(self.live[layer].rows(live.ids)) for layer, live in other.live.items()}
        mine = dict(self.tables())
        for name, table in other.tables():
            _add_rows_(mine[name].numbers, rows[source_of(name)], table.numbers)
        for (_, total), (_, part) in zip(self.normalisers(), other.normalisers(), strict=True):
            add_chunked_(total, part)

    def sort_rows(self, live: Mapping[str, Int[np.ndarray, " _live"]]) -> None:
        """Give rows to some more sources, and put all of them into one order.

        Args:
            live: Source layer to all sources that have a row, and perhaps others, in the order to come.
        """
        order = {layer: torch.from_numpy(self.live[layer].rows(ids)) for layer, ids in live.items()}
        order = {layer: rows for layer, rows in order.items() if not torch.equal(rows, torch.arange(len(rows)))}
        for name, table in self.tables():
            if (layer := source_of(name)) in order:
                table.replace(table.numbers[order[layer].to(table.numbers.device)])
        for layer in order:
            self.live[layer].clear()
            self.live[layer].rows(live[layer])

    def to(self, device: torch.device) -> "Sums":
        """These sums, without squares, on another device; the same tensors where they are there already."""
        fields = {name: value for name, value in vars(self).items() if name not in ("layout", "live", "squares")}
        return replace(self, squares=None, **{name: _move(value, device) for name, value in fields.items()})

    def forget(self) -> None:
        """Set every sum to zero; tables give their memory back."""
        for _, table in self.tables():
            table.forget()
        for _, tensor in self.normalisers():
            tensor.zero_()


def row_counts(layout: Layout) -> dict[str, int]:
    """How many sources each layer that has any could have: components, or token ids."""
    topology = layout.topology
    counts = {**topology.n_components, EMBED: topology.vocab_size}
    return {source: counts[source] for source in dict.fromkeys(s for many in topology.sources.values() for s in many)}


def no_rows(layout: Layout) -> dict[str, LiveRows]:
    """No source that has a row, for each layer that has any."""
    return {source: LiveRows(count) for source, count in row_counts(layout).items()}


def source_of(name: str) -> str:
    """The source layer of a table that `Sums.named` gives."""
    return name.partition("/")[2].partition("->")[0]


def _exchanged(sums: Sums | Squares, names: Iterable[str], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields that are tensors, or mappings of such, filled with others."""

    def exchange(name: str, value: Tensor | dict) -> Any:  # noqa: ANN401 - as given
        return tensors[name] if isinstance(value, Tensor) else {layer: tensors[f"{name}/{layer}"] for layer in value}

    return {name: exchange(name, getattr(sums, name)) for name in names}


def _move(value: Tensor | Table | dict, device: torch.device) -> Any:  # noqa: ANN401 - a tensor, a table or a mapping
    if isinstance(value, dict):
        return {key: _move(inner, device) for key, inner in value.items()}
    return value.to(device)


def _add_rows_(
    total: Float[Tensor, "_row width"], rows: Int[Tensor, " part"], part: Float[Tensor, "part width"]
) -> None:
    """`total[rows] += part` without a temporary larger than one chunk; each row once."""
    if torch.equal(rows, torch.arange(len(rows))):
        add_chunked_(total[: len(rows)], part)
        return
    step = max(CHUNK // max(part.shape[1], 1), 1)
    for some, numbers in zip(rows.split(step), part.split(step), strict=True):
        total.index_add_(0, some.to(total.device), numbers.to(total))


def add_chunked_(total: Tensor, part: Tensor) -> None:
    """`total += part` without a temporary larger than one chunk; dtypes and devices may differ.

    Args:
        total: Contiguous tensor that is changed.
        part: Contiguous tensor of the same shape.
    """
    for into, chunk in zip(total.view(-1).split(CHUNK), part.reshape(-1).split(CHUNK), strict=True):
        into.add_(chunk.to(into.device))  # numbers are widened where they are added, not before they travel
