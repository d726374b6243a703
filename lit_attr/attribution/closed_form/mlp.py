"""Edges inside an MLP: through its elementwise hidden layer, position by position."""

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.attribution.closed_form.operands import PairSums, SourceComponents, TargetComponents
from lit_attr.attribution.closed_form.workspace import Workspace
from lit_attr.decomposition.anatomy import Mlp


def slope(
    mlp: Mlp,
    layer: str,
    up: Float[Tensor, "position hidden"],
    gate: Float[Tensor, "position hidden"] | None,
) -> Float[Tensor, "position hidden"]:
    """The derivative of the hidden layer by the output of one of its matrices.

    Args:
        mlp: The MLP that the matrix belongs to.
        layer: `mlp.up` or `mlp.gate`.
        up: Output of `mlp.up`.
        gate: Output of `mlp.gate`, where there is one.
    """
    if gate is not None and layer == mlp.up:
        return mlp.activation(gate)
    with torch.enable_grad():
        argument = (up if gate is None else gate).detach().requires_grad_()
        (derivative,) = torch.autograd.grad(mlp.activation(argument).sum(), argument)
    return derivative if gate is None else derivative.mul_(up)


def add_mlp_(
    source: SourceComponents, target: TargetComponents, slope: Float[Tensor, "position hidden"], workspace: Workspace
) -> None:
    """Add an edge block through a hidden layer: the tangent of each pair is its write vector times the slope.

    `attr_abs` has no cheaper form: the sign of each target at each position stands between two products.
    """
    pairs = source.pairs
    sums = PairSums(target, pairs)
    bytes_per_pair = (2 * slope.shape[1] + 2 * target.read.shape[1]) * slope.element_size()
    for piece in workspace.pieces(len(pairs.weight), bytes_per_pair):
        sources, positions = pairs.source[piece], pairs.position[piece]
        tangents = slope.index_select(0, positions).mul_(source.write.index_select(0, sources))
        sign = None if target.sign is None else target.sign.index_select(0, positions)
        sums.add_local_(sources, tangents.mul_(pairs.weight[piece, None]), sign)
    sums.write_out()
