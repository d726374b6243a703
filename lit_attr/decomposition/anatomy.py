"""What lies on the direct paths between decomposed matrices: norms, attention, and MLPs, by canonical address."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

# A function that rotates vectors (..., vector, width) as a model does at positions (..., vector).
Rotation = Callable[[Tensor, Int[Tensor, "*axes vector"]], Tensor]


@dataclass(frozen=True)
class Norm:
    """A normalisation over the last axis: in front of readers of the residual stream, or of each query or key head.

    Attributes:
        path: Path of the module in the model.
        weight: Factor of the normalised vector.
        bias: Term added to the product; None for a norm without bias.
        eps: Term added to the mean square.
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
        layer: Canonical layer that computes them.
        columns: The layer's outputs that belong to this projection, where several are fused; None for all.
        norm: Norm of each head, before any rotation; None for heads without one.
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
        norm: Norm in front of the projections.
        query: The queries.
        key: The keys.
        value: The values.
        out: Layer that reads the heads' outputs and writes to the residual stream.
        n_heads: Number of query heads.
        n_groups: Number of query heads that share one head of keys and values.
        head_width: Width of a head.
        scale: Factor of the scores.
        rotate: Rotation of queries and keys; None for a model without rotary positions.
        window: Number of positions that a query sees, its own among them; None for all up to its own.
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
        norm: Norm in front of the hidden layer.
        up: Layer that computes the hidden layer's input.
        gate: Layer that computes the gate's input; None for an MLP without a gate.
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
        stages: The sublayers in the order in which they read from and add to the residual stream; those of one stage
            read the same stream.
        final_norm: Norm in front of the unembedding.
    """

    stages: tuple[tuple[Attention | Mlp, ...], ...]
    final_norm: Norm

    @classmethod
    def serial(cls, sublayers: Sequence[Attention | Mlp], final_norm: Norm) -> "Anatomy":
        """The anatomy in which each sublayer reads what the one before has written."""
        return cls(tuple((sublayer,) for sublayer in sublayers), final_norm)

    @property
    def sublayers(self) -> tuple[Attention | Mlp, ...]:
        """The sublayers of all stages."""
        return tuple(sublayer for stage in self.stages for sublayer in stage)

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms in front of readers of the residual stream; those of heads are not among them."""
        return (*(sublayer.norm for sublayer in self.sublayers), self.final_norm)

    def inner_layers(self, decomposed: Collection[str]) -> list[str]:
        """The matrices whose outputs stay inside sublayers that decomposed matrices begin.

        Args:
            decomposed: Canonical layers of the decomposed matrices.
        """
        begun = (s for s in self.sublayers if any(layer in decomposed for layer in s.readers))
        return [layer for sublayer in begun for layer in sublayer.readers]
