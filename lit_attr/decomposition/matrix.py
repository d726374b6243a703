"""The modules of a model that are matrices: their weights from d_in to d_out, and what they read in a forward."""

from collections.abc import Iterable
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

_CONV1D = "transformers.pytorch_utils.Conv1D"


def is_matrix(module: nn.Module) -> bool:
    """Whether a module maps vectors by a matrix: an `nn.Linear`, or a `Conv1D` of `transformers`."""
    return isinstance(module, nn.Linear) or _is_conv1d(module)


def weight_of(module: nn.Module) -> Float[Tensor, "d_in d_out"]:
    """The matrix of a module, a view of the module's own weight: the output is `x @ weight + bias`.

    Args:
        module: An `nn.Linear` or a `Conv1D` (see `is_matrix`).
    """
    weight = module.get_parameter("weight").detach()
    return weight if _is_conv1d(module) else weight.T


def bias_of(module: nn.Module) -> Float[Tensor, " d_out"] | None:
    """The bias of an `nn.Linear` or a `Conv1D` (see `is_matrix`); None for a module without bias."""
    bias = getattr(module, "bias", None)
    return None if bias is None else bias.detach()


def forward_with_inputs(
    model: nn.Module, paths: Iterable[str], tokens: Int[Tensor, "batch seq"]
) -> tuple[Float[Tensor, "batch seq vocab"], dict[str, Float[Tensor, "batch seq _"]]]:
    """Run a model, and record what some of its matrices read.

    Args:
        model: A model from token ids to logits.
        paths: Paths of the matrices.
        tokens: Token ids.

    Returns:
        Logits, and the path of each matrix to its input.
    """
    inputs: dict[str, Tensor] = {}

    def record(path: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs[path] = args[0]

    handles = [model.get_submodule(path).register_forward_pre_hook(partial(record, path)) for path in paths]
    try:
        return model(tokens), inputs
    finally:
        for handle in handles:
            handle.remove()


def _is_conv1d(module: nn.Module) -> bool:
    # The class is recognised by its name: transformers need not be installed, and takes seconds to import.
    return any(f"{kind.__module__}.{kind.__qualname__}" == _CONV1D for kind in type(module).__mro__)
