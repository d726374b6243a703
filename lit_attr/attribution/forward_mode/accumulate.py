"""From the tangents of a matrix's input to attributions of its components, added to the sums."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.edge_sums import EdgeSums
from lit_attr.attribution.forward_mode.tangents import Tangents
from lit_attr.topology.words import AttrMetric


@dataclass(frozen=True)
class ReadVectors:
    """How the components of a layer that are targets read its input, over the positions of a sequence.

    Attributes:
        vectors: Read vectors; None for the output, whose targets are the dimensions of its input.
        sign: Signs of the components' activations; None where `attr_abs` is not defined.
        columns: Places of these components in the layer.
    """

    vectors: Float[Tensor, "d_in target"] | None
    sign: Float[Tensor, "seq target"] | None
    columns: slice | Int[Tensor, " target"]


def add_input_tangents_(
    tables: Mapping[AttrMetric, Float[Tensor, "_source _target"]],
    target: ReadVectors,
    tangents: Tangents,
    input_tangents: Float[Tensor, "tangent seq d_in"],
) -> None:
    """Add the attributions of one edge block.

    Args:
        tables: Metric to the block's sums; see `Sums.edge`.
        target: How the target components read the input.
        tangents: Tangents of the source layer's output.
        input_tangents: What each of them becomes at the input of the target's matrix.
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
        return values.new_zeros(len(sources), values.shape[-1]).index_add_(0, place, values)

    # `attr` is linear in the input, and is summed before the read vectors meet it.
    total = by_source(input_tangents)
    attr = total[:, target.columns] if target.vectors is None else total @ target.vectors
    EdgeSums(tables["attr"], sources, target.columns).add_(attr)
    if target.vectors is not None and target.sign is not None:
        effect = input_tangents @ target.vectors
        effect.mul_(target.sign if single else target.sign[tangents.position])
        EdgeSums(tables["attr_abs"], sources, target.columns).add_(by_source(effect))
