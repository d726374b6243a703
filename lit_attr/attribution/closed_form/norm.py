"""Norms and their derivatives."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.decomposition.anatomy import Norm


@dataclass(frozen=True)
class Normalised:
    """Normalised vectors.

    Attributes:
        norm: The norm that normalised them.
        value: `h / sqrt(mean(h^2) + eps)`, h less its mean for a LayerNorm; before weight and bias.
        scale: `1 / sqrt(mean(h^2) + eps)`.
    """

    norm: Norm
    value: Float[Tensor, "*axes width"]
    scale: Float[Tensor, "*axes"]

    @classmethod
    def of(cls, norm: Norm, vectors: Float[Tensor, "*axes width"]) -> "Normalised":
        """Normalise vectors."""
        if norm.centred:
            vectors = vectors - vectors.mean(-1, keepdim=True)
        scale = (vectors.square().mean(-1) + norm.eps).rsqrt()
        return cls(norm, vectors * scale[..., None], scale)

    @property
    def output(self) -> Float[Tensor, "*axes width"]:
        """What the norm gives on."""
        weighted = self.value * self.norm.weight.to(self.value)
        return weighted if self.norm.bias is None else weighted + self.norm.bias.to(weighted)

    def part(self, index: tuple[slice, ...]) -> "Normalised":
        """Some of the vectors."""
        return Normalised(self.norm, self.value[index], self.scale[index])

    def jvp(self, tangents: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        """Push tangents of the norm's input forward to its output.

        The norm's derivative in direction u is `weight * scale * (u - value (value . u) / d)`, u less its mean for a
        LayerNorm.
        """
        if self.norm.centred:
            tangents = tangents - tangents.mean(-1, keepdim=True)
        along = (tangents * self.value).mean(-1, keepdim=True)
        pushed = torch.addcmul(tangents, self.value, along, value=-1)
        return pushed.mul_(self.scale[..., None]).mul_(self.norm.weight.to(pushed))
