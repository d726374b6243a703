"""MLPs by their neurons."""

from jaxtyping import Float
from torch import Tensor

from lit_attr.decomposition.untrained.rule import Decomposition, Factors

_INTO_NEURONS = ("mlp.up", "glu.up", "glu.gate")
_OUT_OF_NEURONS = ("mlp.down", "glu.down")


class Neurons(Decomposition):
    """Each neuron a component of the matrices in front of it and behind it; attention is left whole."""

    def factors(self, layer: str, weight: Float[Tensor, "d_in d_out"]) -> Factors | None:
        """A neuron's weights, and the neuron itself; see `Decomposition.factors`."""
        matrix = layer.partition(".")[2]
        if matrix in _INTO_NEURONS:
            return weight, None
        return (None, weight) if matrix in _OUT_OF_NEURONS else None
