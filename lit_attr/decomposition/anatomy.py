"""What lies on the direct paths between decomposed matrices: norms, attention, and MLPs, by canonical address."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

# Rotates vectors of shape (..., vector, width) as a model does at positions of shape (..., vector).
Rotation = Callable[[Tensor, Int[Tensor, "*axes vector"]], Tensor]


@dataclass(frozen=True)
class Norm:
    """A normalisation over the last axis: in front of readers of the residual stream, or of each query or key head.

    Attributes:
        path: Of the module.
        weight: Multiplies the normalised vector.
        bias: Is added to it; None where there is none.
        eps: Added to the mean square.
        centred: Whether the mean is taken out first: a LayerNorm rather than an RMSNorm.
    """

    path: str
    weight: Float[Tensor, " width"]
    bias: Float[Tensor, " width"] | None
    eps: float
    centred: bool


@dataclass(frozen=True)
class Projection:
    """Queries, keys or values, head by head.

    Attributes:
        layer: Whose output they are.
        columns: Which of its outputs, where it is fused from several projections; None for all.
        norm: Of each head, before any rotation; None where there is none.
    """

    layer: str
    columns: Int[Tensor, " column"] | None = None
    norm: Norm | None = None

    def of(self, outputs: Float[Tensor, "*axes d_out"]) -> Float[Tensor, "*axes column"]:
        """The projection's part of the layer's outputs."""
        return outputs if self.columns is None else outputs[..., self.columns]


@dataclass(frozen=True)
class Attention:
    """A causal softmax attention.

    Attributes:
        norm: In front of the projections.
        query: The queries.
        key: The keys.
        value: The values.
        out: Layer that reads the heads' outputs and writes to the residual stream.
        n_heads: Query heads.
        n_groups: Query heads that share one head of keys and values.
        head_width: Width of a head.
        scale: Multiplies the scores.
        rotate: Of queries and keys; None where positions are not rotary.
        window: How many positions a query sees, its own among them; None for all up to its own.
    """

    norm: Norm
    query: Projection
    key: Projection
    value: Projection
    out: str
    n_heads: int
    n_groups: int
    head_width: int
    scale: float
    rotate: Rotation | None = None
    window: int | None = None

    @property
    def readers(self) -> tuple[str, ...]:
        """Layers that read the residual stream."""
        return tuple(dict.fromkeys(projection.layer for projection in (self.query, self.key, self.value)))


@dataclass(frozen=True)
class Mlp:
    """A hidden layer, `activation(up)`, or gated, `activation(gate) * up`.

    Attributes:
        norm: In front of the hidden layer.
        up: Layer of the hidden layer.
        gate: Layer of its gate; None where it has none.
        out: Layer that reads the hidden layer and writes to the residual stream.
        activation: Elementwise function.
    """

    norm: Norm
    up: str
    gate: str | None
    out: str
    activation: Callable[[Tensor], Tensor]

    @property
    def readers(self) -> tuple[str, ...]:
        """Layers that read the residual stream."""
        return (self.up,) if self.gate is None else (self.gate, self.up)


@dataclass(frozen=True)
class Anatomy:
    """A pre-norm transformer between its embedding and its unembedding.

    Attributes:
        stages: In the order in which they read from and add to the residual stream; the sublayers of one stage read the
            same stream.
        final_norm: In front of the unembedding.
    """

    stages: tuple[tuple[Attention | Mlp, ...], ...]
    final_norm: Norm

    @classmethod
    def serial(cls, sublayers: Sequence[Attention | Mlp], final_norm: Norm) -> "Anatomy":
        """Each sublayer reads what the one before has written."""
        return cls(tuple((sublayer,) for sublayer in sublayers), final_norm)

    @property
    def sublayers(self) -> tuple[Attention | Mlp, ...]:
        """All of them."""
        return tuple(sublayer for stage in self.stages for sublayer in stage)

    @property
    def norms(self) -> tuple[Norm, ...]:
        """Those in front of readers of the residual stream."""
        return (*(sublayer.norm for sublayer in self.sublayers), self.final_norm)

    def inner_layers(self, decomposed: Collection[str]) -> list[str]:
        """The matrices whose outputs stay inside sublayers that decomposed matrices begin.

        Args:
            decomposed: Layers.
        """
        begun = (s for s in self.sublayers if any(layer in decomposed for layer in s.readers))
        return [layer for sublayer in begun for layer in sublayer.readers]
