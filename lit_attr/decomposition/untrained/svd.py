"""Matrices by their singular components."""

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.decomposition.untrained.rule import Decomposition


class Svd(Decomposition):
    """Each matrix by its singular components, the strongest first.

    A component reads a singular vector of unit length; what it writes has the length of the singular value.
    """

    def factors(
        self, layer: str, weight: Float[Tensor, "d_in d_out"]
    ) -> tuple[Float[Tensor, "d_in component"], Float[Tensor, "component d_out"]]:
        """Left singular vectors, and right ones times the singular values; see `Decomposition.factors`."""
        # In float64, so that two machines find the same components.
        left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
        # A pair of vectors may change its signs together: the largest entry of the first is to be positive.
        largest = left.abs().argmax(0, keepdim=True)
        signs = torch.where(left.gather(0, largest)[0] < 0, -1.0, 1.0)
        return (left * signs).to(weight), ((values * signs)[:, None] * right).to(weight)
