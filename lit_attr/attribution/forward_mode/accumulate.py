"""From the tangents of an input to attributions of the components that read it, added to the sums."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.edge_sums import add_at_, add_rows_
from lit_attr.attribution.forward_mode.tangents import Tangents


@dataclass(frozen=True)
class Readers:
    """The components of a layer that are targets, over the positions of a sequence.

    Attributes:
        read: Their read vectors.
        sign: Signs of their activations.
    """

    read: Float[Tensor, "d_in target"]
    sign: Float[Tensor, "seq target"]


def add_input_tangents_(
    attr: Float[Tensor, "_row d_in"] | None,
    attr_abs: Sequence[tuple[Readers, Float[Tensor, "_row _target"]]],
    row_of: Int[Tensor, " _source"],
    tangents: Tangents,
    input_tangents: Float[Tensor, "tangent seq d_in"],
) -> None:
    """Add the attributions of the edge blocks into one input.

    Args:
        attr: Sums of `attr`; see `Sums`. None where they are not kept.
        attr_abs: Each target layer that reads the input, and its sums of `attr_abs`.
        row_of: The row of each source of the layer in these.
        tangents: Tangents of the source layer's output.
        input_tangents: What each of them becomes at the input.
    """
    single = tangents.one_source_each
    if single:
        sources = tangents.sources[tangents.source.unique_consecutive()]
    else:
        input_tangents = input_tangents[tangents.tangent, tangents.position]
        present, place = tangents.source.unique(return_inverse=True)
        sources = tangents.sources[present]

    def by_source(values: Float[Tensor, "*axes width"]) -> Float[Tensor, "source width"]:
        if single:
            return values.sum(1)
        sums = values.new_zeros(len(sources), values.shape[-1])
        add_rows_(sums, place, values)
        return sums

    rows = row_of[sources]
    if attr is not None:
        add_at_(attr, rows, slice(None), by_source(input_tangents))
    for readers, table in attr_abs:
        effect = input_tangents @ readers.read
        effect.mul_(readers.sign if single else readers.sign[tangents.position])
        add_at_(table, rows, slice(None), by_source(effect))
