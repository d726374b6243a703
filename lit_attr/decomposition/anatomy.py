"""What lies on the direct paths between decomposed matrices: norms, attention, and MLPs, by canonical address."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

# Rotates vectors of shape (..., vector, width) as a model does at positions of shape (..., vector).
Rotation = Callable[[Tensor, Int[Tensor, "*axes vector"]], Tensor]


@dataclass(frozen=True)
class Norm:
    """A normalisation that stands in front of readers of the residual stream.

    Attributes:
        path: Of the module.
        weight: Multiplies the normalised stream.
        bias: Is added to it; None where there is none.
        eps: Added to the mean square.
        centred: Whether the mean is taken out first: a LayerNorm rather than an RMSNorm.
    """

    path: str
    weight: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"] | None
    eps: float
    centred: bool


@dataclass(frozen=True)
class Attention:
    """A causal softmax attention.

    Attributes:
        norm: In front of the projections.
        query: Layer whose output the queries are.
        key: Layer whose output the keys are.
        value: Layer whose output the values are.
        out: Layer that reads the heads' outputs and writes to the residual stream.
        n_heads: Query heads.
        n_groups: Query heads that share one head of keys and values.
        head_width: Width of a head; scores are divided by its root.
        rotate: Of queries and keys; None where positions are not rotary.
    """

    norm: Norm
    query: str
    key: str
    value: str
    out: str
    n_heads: int
    n_groups: int
    head_width: int
    rotate: Rotation | None

    @property
    def readers(self) -> tuple[str, ...]:
        """Layers that read the residual stream."""
        return (self.query, self.key, self.value)


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
        sublayers: In the order in which they read from and add to the residual stream.
        final_norm: In front of the unembedding.
    """

    sublayers: tuple[Attention | Mlp, ...]
    final_norm: Norm

    @property
    def norms(self) -> tuple[Norm, ...]:
        """All of them."""
        return (*(sublayer.norm for sublayer in self.sublayers), self.final_norm)

    def inner_layers(self, decomposed: Collection[str]) -> list[str]:
        """The matrices whose outputs stay inside sublayers that decomposed matrices begin.

        Args:
            decomposed: Layers.
        """
        begun = (s for s in self.sublayers if any(layer in decomposed for layer in s.readers))
        return [layer for sublayer in begun for layer in sublayer.readers]
