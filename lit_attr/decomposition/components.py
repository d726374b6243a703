"""Rank-one components of a weight matrix."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_attr.decomposition.widening import Widens, linear


class LinearComponents(Widens):
    """A weight matrix as a sum of rank-one components: `x -> (x @ V) @ U + bias`.

    Component c reads `V[:, c]` and writes `U[c]`. The names of the parameters are those of a run's checkpoint.

    Args:
        d_in: Width of the matrix's input.
        d_out: Width of its output.
        n_components: Number of components.
        bias: Whether the matrix has a bias, which is added whole whatever the components do.
    """

    bias: Tensor | None

    def __init__(self, d_in: int, d_out: int, n_components: int, *, bias: bool) -> None:
        super().__init__()
        self.V = nn.Parameter(torch.zeros(d_in, n_components))
        self.U = nn.Parameter(torch.zeros(n_components, d_out))
        self.register_buffer("bias", torch.zeros(d_out) if bias else None)

    @property
    def n_components(self) -> int:
        """Number of components."""
        return self.V.shape[1]

    def read(self, x: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes component"]:
        """Component activations: how strongly each component reads the input."""
        return linear(x, self.V.T)

    def write(self, activations: Float[Tensor, "*axes component"]) -> Float[Tensor, "*axes d_out"]:
        """The output that the activations produce, bias included."""
        out = linear(activations, self.U.T)
        return out if self.bias is None else out + self.bias
