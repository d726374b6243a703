"""Edges through the residual stream: from what writes to it to what reads it behind a norm, position by position."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.attribution.closed_form.blocks import Source, Target
from lit_attr.attribution.closed_form.weights import Weights
from lit_attr.attribution.closed_form.workspace import Workspace
from lit_attr.decomposition.anatomy import Norm


@dataclass(frozen=True)
class Normalised:
    """A normalised residual stream.

    Attributes:
        norm: Which normalised it.
        value: `h / sqrt(mean(h^2) + eps)`, h less its mean for a LayerNorm; before weight and bias.
        scale: `1 / sqrt(mean(h^2) + eps)`.
    """

    norm: Norm
    value: Float[Tensor, "position d_model"]
    scale: Float[Tensor, " position"]

    @classmethod
    def of(cls, norm: Norm, stream: Float[Tensor, "position d_model"]) -> "Normalised":
        """Normalise a stream."""
        if norm.centred:
            stream = stream - stream.mean(-1, keepdim=True)
        scale = (stream.square().mean(-1) + norm.eps).rsqrt()
        return cls(norm, stream * scale[:, None], scale)

    def push(self, rows: Float[Tensor, "position d_model"]) -> Float[Tensor, "position d_model"]:
        """What the norm gives on if one row is added to the stream at each position, to first order.

        The norm's derivative in direction u is `weight * scale * (u - value (value . u) / d)`, u less its mean for a
        LayerNorm.
        """
        if self.norm.centred:
            rows = rows - rows.mean(1, keepdim=True)
        along = (rows * self.value).mean(1, keepdim=True)
        pushed = torch.addcmul(rows, self.value, along, value=-1)
        return pushed.mul_(self.scale[:, None]).mul_(self.norm.weight.to(rows))


def add_tokens_(rows: Float[Tensor, "position d_model"], weights: Weights, target: Target, stream: Normalised) -> None:
    """Add an edge block from the embedding, position by position.

    Where a stream is little more than the embedding, both terms of the derivative are large and nearly equal: here they
    meet before anything else rounds.

    Args:
        rows: Embedding of the token at each position.
        weights: One at each position, for its token.
        target: Of the block.
        stream: Behind the target's norm.
    """
    effect = stream.push(rows) @ target.read
    target.attr.add_(weights.total(effect))
    if target.attr_abs is not None and target.sign is not None:
        target.attr_abs.add_(weights.total(effect.mul_(target.sign)))


def add_stream_(source: Source, target: Target, stream: Normalised, workspace: Workspace) -> None:
    """Add an edge block through the residual stream.

    Of the norm's derivative (`Normalised.push`) the first term is the same at all positions but for the scale; the
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
