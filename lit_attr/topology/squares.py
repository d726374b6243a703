"""Squares of what groups of updates have summed: what standard errors come from.

A *group* is a number of batches of one process. Of an edge it has a sum x, of the edge's source a weight c: its summed
causal importance, or the occurrences of a token. Over all groups these add up to X and C, and the attribution is shown
as X / C (over the target's root mean square). With the sum Q of x^2 / c,

    sum of (x - c X / C)^2 / c  =  Q - X^2 / C,

so that the spread of the groups about their common ratio needs one number for each edge, which adds up over processes,
parts and restarts as all sums do. What follows from it is in `lit_attr.storage.summed_errors`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.layout import Layout
from lit_attr.topology.tables import LiveRows, Table, zeros

if TYPE_CHECKING:
    from lit_attr.topology.sums import Sums

# Edges into output tokens are products of the unembedding with sums in the residual stream, whose spread has no square
# of its own: groups are dealt out in turn to so many blocks, and each block keeps its sums. The variance of an edge is
# then known to a relative error of sqrt(2 / 15).
N_BLOCKS = 16
# Numbers of a product that are there at once.
_PIECE = 1 << 22


@dataclass(frozen=True)
class Squares:
    """Sums over groups, to be updated in place; sources are rows, as in `Sums`.

    Attributes:
        attr: Target layer to source layer to Q of `attr`, source by target of `Layout.squares`.
        attr_abs: Target layer to source layer to Q of `attr_abs`, source by target of `Layout.targets`.
        blocks: Source layer to sums of `attr` at the input of the unembedding, source by block and residual dimension;
            empty where the layout does not have that input.
        weight_sq: Source layer, or `embed`, to the sum over groups of c^2.
        abs_weight: The sum over groups of what a source weighs in `attr_abs`: c, times the share of the group's tokens
            over which `attr_abs` is summed. Empty where that metric is not harvested.
        abs_weight_sq: The sum of its squares.
        block_weight: The sum of c over the groups of each block, where `blocks` has any.
        n_groups: Number of groups.
        n_abs_groups: Number of groups with tokens over which `attr_abs` is summed.
    """

    attr: dict[str, dict[str, Table]]
    attr_abs: dict[str, dict[str, Table]]
    blocks: dict[str, Table]
    weight_sq: dict[str, Float[Tensor, " _component"]]
    abs_weight: dict[str, Float[Tensor, " _component"]]
    abs_weight_sq: dict[str, Float[Tensor, " _component"]]
    block_weight: dict[str, Float[Tensor, "_component block"]]
    n_groups: Int[Tensor, ""]
    n_abs_groups: Int[Tensor, ""]

    @classmethod
    def zeros(
        cls, layout: Layout, dtype: torch.dtype, device: torch.device | str, live: Mapping[str, LiveRows]
    ) -> "Squares":
        """Squares of nothing.

        Args:
            layout: Decides names and shapes.
            dtype: Floating-point type of the sums of weights; that of the squares is the layout's.
            device: Device that keeps them.
            live: The sources that have a row.
        """
        topology, of_squares = layout.topology, layout.squares_dtype or dtype

        def tables(sources: tuple[str, ...], width: int) -> dict[str, Table]:
            return {source: Table(live[source], width, of_squares, device) for source in sources}

        def weights(*more: int) -> dict[str, Tensor]:
            return {source: zeros((rows.n_all, *more), dtype, device) for source, rows in live.items()}

        def by_target(targets: Mapping[str, Tensor]) -> dict[str, dict[str, Table]]:
            return {target: tables(topology.sources[target], len(ids)) for target, ids in targets.items()}

        has_output = OUTPUT in topology.sources and topology.inputs[OUTPUT] in layout.inputs
        return cls(
            attr=by_target(layout.squares),
            attr_abs=by_target(layout.targets),
            blocks=tables(topology.sources[OUTPUT], N_BLOCKS * topology.d_model) if has_output else {},
            weight_sq=weights(),
            abs_weight=weights() if layout.targets else {},
            abs_weight_sq=weights() if layout.targets else {},
            block_weight=weights(N_BLOCKS) if has_output else {},
            n_groups=zeros((), torch.int64, device),
            n_abs_groups=zeros((), torch.int64, device),
        )

    def tables(self) -> Iterator[tuple[str, Table]]:
        """The tables with unique names, in a fixed order."""
        for name, nested in (("attr_sq", self.attr), ("attr_abs_sq", self.attr_abs), ("blocks", {OUTPUT: self.blocks})):
            for target, by_source in nested.items():
                for source, table in by_source.items():
                    yield f"{name}/{source}->{target}", table

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All other tensors with unique names, in a fixed order."""
        for name in ("weight_sq", "abs_weight", "abs_weight_sq", "block_weight"):
            for layer, tensor in getattr(self, name).items():
                yield f"{name}/{layer}", tensor
        yield "n_groups", self.n_groups
        yield "n_abs_groups", self.n_abs_groups

    def add_group_(self, group: "Sums", read: Mapping[str, Float[Tensor, "_width _target"]], block: int) -> None:
        """Add a group.

        Args:
            group: What it has summed, on any device; rows as here.
            read: Target layer to the read vectors of its targets, on the device of the group.
            block: The block that it is dealt to.
        """
        n_tokens, n_abs_tokens = int(group.n_tokens), int(group.n_abs_tokens)
        if n_tokens == 0:
            return
        self.n_groups.add_(1)
        self.n_abs_groups.add_(int(n_abs_tokens > 0))
        rows, roots = dict[str, Tensor](), dict[str, Tensor]()
        for layer, live in group.live.items():
            weight = group.token_count if layer == EMBED else group.ci[layer]
            on_host = weight.to(self.weight_sq[layer])
            self.weight_sq[layer].addcmul_(on_host, on_host)
            if self.abs_weight:
                of_abs = on_host * (n_abs_tokens / n_tokens)
                self.abs_weight[layer].add_(of_abs)
                self.abs_weight_sq[layer].addcmul_(of_abs, of_abs)
            if self.block_weight:
                self.block_weight[layer][:, block] += on_host
            of_rows = on_host[torch.from_numpy(live.ids)]
            rows[layer] = of_rows.nonzero()[:, 0]
            roots[layer] = of_rows[rows[layer]].rsqrt().to(group.logit_sq)[:, None]
        for name, by_source in group.attr.items():
            readers = [layer for layer in group.layout.topology.readers[name] if layer in self.attr]
            vectors = torch.cat([read[layer] for layer in readers], 1) if readers else None
            for source, table in by_source.items():
                if vectors is not None:
                    totals = [self.attr[layer][source].numbers for layer in readers]
                    _add_squares_(totals, table.numbers, rows[source], roots[source], vectors)
                if self.blocks and name == group.layout.topology.inputs[OUTPUT]:
                    d_model = table.width
                    of_block = self.blocks[source].numbers[:, block * d_model : (block + 1) * d_model]
                    of_block += table.numbers.to(of_block)
        if n_abs_tokens:
            scale = (n_tokens / n_abs_tokens) ** 0.5
            for target, by_source in group.attr_abs.items():
                for source, table in by_source.items():
                    total = self.attr_abs[target][source].numbers
                    _add_squares_([total], table.numbers, rows[source], roots[source] * scale, None)


def _add_squares_(
    totals: list[Float[Tensor, "_row _target"]],
    numbers: Float[Tensor, "row width"],
    rows: Int[Tensor, " occurring"],
    roots: Float[Tensor, "occurring 1"],
    vectors: Float[Tensor, "width all_targets"] | None,
) -> None:
    """Add the squares of scaled sums, piece by piece; `totals` have the columns, one after the other."""
    widths = [total.shape[1] for total in totals]
    if not sum(widths) or not len(rows):
        return
    are_all = len(rows) == len(numbers)
    step = max(_PIECE // sum(widths), 1)
    for some, scales in zip(rows.split(step), roots.split(step), strict=True):
        place = slice(int(some[0]), int(some[-1]) + 1) if are_all else some.to(numbers.device)
        scaled = numbers[place] * scales
        scaled = scaled if vectors is None else scaled @ vectors
        for total, columns in zip(totals, scaled.to(totals[0]).split(widths, 1), strict=True):
            if are_all:
                total[place].addcmul_(columns, columns)
            else:
                total.index_add_(0, some, columns.square())
