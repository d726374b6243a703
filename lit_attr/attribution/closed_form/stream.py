"""Edges through the residual stream: from what writes to it to what reads it behind a norm, position by position."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lit_attr.attribution.closed_form.norm import Normalised
from lit_attr.attribution.closed_form.operands import Readers, SourceComponents
from lit_attr.attribution.closed_form.weights import Weights
from lit_attr.attribution.closed_form.workspace import Workspace


@dataclass(frozen=True)
class StreamReaders:
    """Components that read the stream behind a norm.

    Attributes:
        readers: The components.
        gained: Their read vectors times the norm's weight: how they read the stream before it.
        magnitude: Their activations without the part that the norm's bias adds, times the sign of the whole.
    """

    readers: Readers
    gained: Float[Tensor, "d_model target"]
    magnitude: Float[Tensor, "position target"]

    @classmethod
    def of(cls, readers: Readers, stream: Normalised) -> "StreamReaders":
        """Some components, and the stream behind their norm."""
        weight, bias = stream.norm.weight, stream.norm.bias
        read, y, sign = readers.read, readers.y, readers.sign
        magnitude = y.abs() if bias is None else (y - bias.to(read) @ read).mul_(sign)
        return cls(readers, weight.to(read)[:, None] * read, magnitude)


@dataclass(frozen=True)
class StreamSources:
    """Components that write to the stream, before a norm.

    Of the norm's derivative (`Normalised.jvp`) the first term is the same at all positions but for the scale; the
    second is proportional to the normalised stream.

    Attributes:
        stream: The stream behind the norm.
        write: Write vectors, less their mean for a LayerNorm.
        scaled: Weights times the norm's scale.
        removed: Weights of what the norm removes: `scaled` times the write vector along the stream.
    """

    stream: Normalised
    write: Float[Tensor, "source d_model"]
    scaled: Weights
    removed: Weights

    @classmethod
    def of(cls, source: SourceComponents, stream: Normalised, workspace: Workspace) -> "StreamSources":
        """The components of a layer, and the stream behind a norm."""
        write = source.write - source.write.mean(1, keepdim=True) if stream.norm.centred else source.write
        scaled = source.weights.scaled(stream.scale)
        return cls(stream, write, scaled, scaled.along(stream.value / write.shape[1], write, workspace))

    def tangents(self) -> Float[Tensor, "source d_model"]:
        """What the components add to the norm's output, summed over positions: `attr` in read space."""
        ones = self.stream.scale.new_ones(len(self.stream.scale), 1)
        kept = self.write * self.scaled.total(ones)
        return kept.sub_(self.removed.total(self.stream.value)).mul_(self.stream.norm.weight.to(kept))

    def signed_effects(self, target: StreamReaders) -> Float[Tensor, "source target"]:
        """What the components add to the activations of others times their signs, summed over positions: `attr_abs`."""
        effects = (self.write @ target.gained).mul_(self.scaled.total(target.readers.sign))
        return effects.sub_(self.removed.total(target.magnitude))
