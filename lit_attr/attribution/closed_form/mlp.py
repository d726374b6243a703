"""Edges inside an MLP: through its elementwise hidden layer, position by position."""

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.attribution.closed_form.kernel_choice import checked_kernel
from lit_attr.attribution.closed_form.operands import PairSums, Readers, SourceComponents
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


def mlp_tangents(source: SourceComponents, slope: Float[Tensor, "position hidden"]) -> Float[Tensor, "source hidden"]:
    """What sources add to the hidden layer, summed over positions: `attr` in read space."""
    return source.weights.total(slope).mul_(source.write)


def mlp_signed_effects(
    source: SourceComponents, target: Readers, slope: Float[Tensor, "position hidden"], workspace: Workspace
) -> Float[Tensor, "source target"]:
    """What sources add to the activations of readers times their signs, summed over positions: `attr_abs`.

    There is no cheaper form than pair by pair: the sign of each target at each position stands between two products.
    """
    pairs = source.pairs
    kernel = checked_kernel(slope.device) if slope.dtype == torch.float32 else None
    if kernel is not None:
        operands = (slope, source.write, target.read, target.sign)
        return kernel(pairs.position, pairs.source, pairs.weight, *operands, workspace)
    sums = PairSums(pairs, target.read.shape[1])
    bytes_per_pair = (2 * slope.shape[1] + 2 * target.read.shape[1]) * slope.element_size()
    for piece in workspace.pieces(len(pairs.weight), bytes_per_pair):
        sources, positions = pairs.source[piece], pairs.position[piece]
        tangents = slope.index_select(0, positions).mul_(source.write.index_select(0, sources))
        effects = tangents.mul_(pairs.weight[piece, None]) @ target.read
        sums.add_(sources, effects.mul_(target.sign.index_select(0, positions)))
    return sums.total
