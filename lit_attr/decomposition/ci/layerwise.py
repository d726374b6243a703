"""Causal-importance functions with one part per matrix.

A function takes what the decomposed matrices read in the unmodified target, and gives pre-sigmoid values, matrix by
matrix: those of a whole model need not be there at once. Formulas and parameter names are those of goodfire-ai/spd;
inputs and outputs are named by the matrices' paths in the target.
"""

from collections.abc import Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from lit_attr.decomposition.ci.layers import mlp, parallel_mlp
from lit_attr.decomposition.components import LinearComponents

Inputs = Mapping[str, Float[Tensor, "batch seq _"]]
PreSigmoid = Iterator[tuple[str, Float[Tensor, "batch seq _"]]]


def dashed(path: str) -> str:
    """A dotted path as a module name: checkpoints write `-` for `.`."""
    return path.replace(".", "-")


class ActivationMLP(nn.Module):
    """`mlp`: each component has a scalar MLP of its own activation.

    Args:
        components: Components of the matrix.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, components: LinearComponents, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = parallel_mlp(components.n_components, [1, *hidden, 1])
        # In a tuple, so that the components are not registered a second time.
        self._components = (components,)

    def forward(self, x: Float[Tensor, "batch seq d_in"]) -> Float[Tensor, "batch seq component"]:
        """Pre-sigmoid causal importance."""
        return self.layers(self._components[0].read(x)[..., None])[..., 0]


class VectorMLP(nn.Module):
    """`vector_mlp`: each component has an MLP of its own over the matrix's input.

    Args:
        components: Components of the matrix.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, components: LinearComponents, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = parallel_mlp(components.n_components, [components.V.shape[0], *hidden, 1])

    def forward(self, x: Float[Tensor, "batch seq d_in"]) -> Float[Tensor, "batch seq component"]:
        """Pre-sigmoid causal importance."""
        return self.layers(x[..., None, :])[..., 0]


class SharedMLP(nn.Module):
    """`shared_mlp`: one MLP from the matrix's input to all its components.

    Args:
        components: Components of the matrix.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, components: LinearComponents, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = mlp([components.V.shape[0], *hidden, components.n_components])

    def forward(self, x: Float[Tensor, "batch seq d_in"]) -> Float[Tensor, "batch seq component"]:
        """Pre-sigmoid causal importance."""
        return self.layers(x)


class LayerwiseCI(nn.Module):
    """A causal-importance function for each matrix by itself.

    Args:
        functions: Path of each matrix to its function.
    """

    def __init__(self, functions: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._ci_fns = nn.ModuleDict({dashed(path): function for path, function in functions.items()})

    def forward(self, inputs: Inputs) -> PreSigmoid:
        """Pre-sigmoid causal importance, matrix by matrix."""
        for path, x in inputs.items():
            yield path, self._ci_fns[dashed(path)](x)
