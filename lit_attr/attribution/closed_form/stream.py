"""Edges through the residual stream: from what writes to it to what reads it behind a norm, position by position."""

from jaxtyping import Float
from torch import Tensor

from lit_attr.attribution.closed_form.norm import Normalised
from lit_attr.attribution.closed_form.operands import SourceComponents, TargetComponents
from lit_attr.attribution.closed_form.weights import Weights
from lit_attr.attribution.closed_form.workspace import Workspace


def add_tokens_(
    rows: Float[Tensor, "position d_model"], weights: Weights, target: TargetComponents, stream: Normalised
) -> None:
    """Add an edge block from the embedding, position by position.

    Where a stream is little more than the embedding, both terms of the derivative are large and nearly equal: here they
    meet before anything else rounds.

    Args:
        rows: Embedding of the token at each position.
        weights: Weights of tokens, one at each position.
        target: Components that read the stream.
        stream: The stream behind the target's norm.
    """
    effect = stream.jvp(rows) @ target.read
    target.attr.add_(weights.total(effect))
    if target.attr_abs is not None and target.sign is not None:
        target.attr_abs.add_(weights.total(effect.mul_(target.sign)))


def add_stream_(source: SourceComponents, target: TargetComponents, stream: Normalised, workspace: Workspace) -> None:
    """Add an edge block through the residual stream.

    Of the norm's derivative (`Normalised.jvp`) the first term is the same at all positions but for the scale; the
    second is proportional to the target's activation without the part that the norm's bias adds.
    """
    norm, d_model = stream.norm, stream.value.shape[1]
    write, offset = source.write, None
    if norm.centred:
        write = write - write.mean(1, keepdim=True)
    if norm.bias is not None:
        offset = norm.bias.to(write) @ target.read
    direct = write @ (norm.weight.to(write)[:, None] * target.read)
    scaled = source.weights.scaled(stream.scale)
    removed = scaled.along(stream.value / d_model, write, workspace)
    y = target.y if offset is None else target.y - offset

    values = removed.total(y).neg_()
    target.attr.add_(values.addcmul_(direct, source.weights.total(stream.scale[:, None])))
    if target.attr_abs is not None and target.sign is not None:
        values = removed.total(y * target.sign).neg_()
        target.attr_abs.add_(values.addcmul_(direct, scaled.total(target.sign)))
