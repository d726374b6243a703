"""Decomposing a model by a rule, without training."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_attr.decomposition.ci.layerwise import LayerwiseCI
from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.matrix import bias_of, is_matrix, weight_of
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.targets.target_model import TargetModel
from lit_attr.decomposition.untrained.rule import Decomposition
from lit_attr.errors import ConfigurationError, UnsupportedModelError
from lit_attr.topology.address import block_address
from lit_attr.topology.paths import PathTable

_PROBES = 4
# Error that is allowed, relative to the matrix's output; rounding leaves some 1e-6 of it in float32.
_TOLERANCE = 1e-4


def decompose(target: TargetModel, table: PathTable, decomposition: Decomposition) -> DecomposedModel:
    """Decompose a model.

    Args:
        target: The target model; one without numbers becomes a decomposed model without numbers.
        table: Path table of the target.
        decomposition: The rule.

    Raises:
        UnsupportedModelError: If a module that the table names is no matrix.
        ConfigurationError: If the decomposition leaves all matrices whole, or its factors are not those of a matrix.
    """
    identities: dict[int, nn.Parameter] = {}
    components: dict[str, LinearComponents] = {}
    with torch.no_grad():
        for layer, module in _selected(_block_matrices(target, table), decomposition).items():
            weight = weight_of(module)
            factors = _factors(decomposition, layer, weight)
            if factors is not None:
                V, U = _complete(layer, weight, factors, identities)
                components[table.path(layer)] = _components(V, U, bias_of(module))
    if not components:
        raise ConfigurationError(f"{decomposition!r} decomposes no matrix of {table.architecture}")
    ci = LayerwiseCI({path: _Importance(parts, decomposition) for path, parts in components.items()})
    return DecomposedModel(
        target, table, components, ci, None, vocab_size=target.n_token_ids, block_size=target.block_size
    )


def _factors(decomposition: Decomposition, layer: str, weight: Tensor) -> tuple[Tensor | None, Tensor | None] | None:
    """The factors that a rule gives, in the matrix's dtype; a rule of a user may return anything, and is checked."""
    call = f"{type(decomposition).__name__}.factors({layer!r}, ...)"
    try:
        answer: object = decomposition.factors(layer, weight)
    except Exception as error:
        raise ConfigurationError(f"{call} failed with {type(error).__name__}: {error}") from error
    if answer is None:
        return None
    if not (
        isinstance(answer, tuple)
        and len(answer) == 2
        and all(part is None or isinstance(part, Tensor) for part in answer)
    ):
        kind = type(answer).__name__
        raise ConfigurationError(f"{call} must give two tensors, either of them None, or None; found a {kind}")
    V, U = answer
    return None if V is None else V.to(weight), None if U is None else U.to(weight)


class _Importance(nn.Module):
    """The causal importances of one matrix's components."""

    norms: Tensor

    def __init__(self, components: LinearComponents, decomposition: Decomposition) -> None:
        super().__init__()
        # In a tuple, so that the components are not registered a second time.
        self._components = (components,)
        self._decomposition = decomposition
        self.register_buffer("norms", components.U.detach().norm(dim=1))

    def forward(self, x: Float[Tensor, "batch seq d_in"]) -> Float[Tensor, "batch seq component"]:
        activations = self._components[0].read(x)
        importance = self._decomposition.importance(activations, self.norms)
        if importance.shape != activations.shape:
            raise ConfigurationError(
                f"{type(self._decomposition).__name__}.importance must give the shape of the activations, "
                f"{tuple(activations.shape)}, found {tuple(importance.shape)}"
            )
        return importance


def _block_matrices(target: TargetModel, table: PathTable) -> dict[str, nn.Module]:
    """The matrices of all blocks by canonical layer, block by block in the table's order."""
    modules = dict(target.named_modules())
    matrices: dict[str, nn.Module] = {}
    for block in count():
        layers = (block_address(block, matrix) for matrix in table.blocks)
        there = {layer: modules[table.path(layer)] for layer in layers if table.path(layer) in modules}
        if not there:
            break
        matrices.update(there)
    for layer, module in matrices.items():
        if not is_matrix(module):
            raise UnsupportedModelError(
                f"{table.architecture}: {layer} ({table.path(layer)}) must be an nn.Linear or a Conv1D, "
                f"found {type(module).__name__}"
            )
    return matrices


def _selected(layers: Mapping[str, nn.Module], decomposition: Decomposition) -> dict[str, nn.Module]:
    patterns = ["*"] if decomposition.matrices is None else decomposition.matrices
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise ConfigurationError(
                f"{type(decomposition).__name__}: the pattern {pattern!r} of matrices matches none of the model's: "
                f"{', '.join(layers)}"
            )
    return {layer: m for layer, m in layers.items() if any(fnmatchcase(layer, pattern) for pattern in patterns)}


def _complete(
    layer: str,
    weight: Float[Tensor, "d_in d_out"],
    factors: tuple[Tensor | None, Tensor | None],  # of any shapes, until they are checked
    identities: dict[int, nn.Parameter],
) -> tuple[nn.Parameter, nn.Parameter]:
    """The factors as parameters, the identity wherever one is None; checked against the matrix."""
    d_in, d_out = weight.shape
    V, U = factors
    shapes = [None if part is None else tuple(part.shape) for part in factors]
    width = d_in if V is None else V.shape[-1]
    if (V is not None and shapes[0] != (d_in, width)) or (shapes[1] or (d_out, d_out)) != (width, d_out):
        raise ConfigurationError(
            f"the factors of {layer} must have the shapes ({d_in}, C) and (C, {d_out}), found {shapes[0]} and "
            f"{shapes[1]}; None stands for the identity"
        )
    if not weight.is_meta:
        _check_product(layer, weight, V, U)
    if (V is None or U is None) and width not in identities:
        identities[width] = _parameter(torch.eye(width, dtype=weight.dtype, device=weight.device))
    return (
        identities[width] if V is None else _parameter(V),
        identities[width] if U is None else _parameter(U),
    )


def _check_product(layer: str, weight: Tensor, V: Tensor | None, U: Tensor | None) -> None:
    """Refuse factors, None standing for the identity, that do not multiply to the matrix."""
    d_in = len(weight)
    probes = torch.randn(_PROBES, d_in, generator=torch.Generator().manual_seed(0), dtype=weight.dtype)
    read = probes if V is None else probes @ V
    expected = probes @ weight
    error = float(((read if U is None else read @ U) - expected).norm() / expected.norm().clamp_min(1e-30))
    if not error <= _TOLERANCE:
        raise ConfigurationError(
            f"the factors of {layer} must multiply to the matrix, whose components are all on in the forward that is "
            f"attributed; expected a relative error of at most {_TOLERANCE}, found {error:.3g}"
        )


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _components(V: nn.Parameter, U: nn.Parameter, bias: Tensor | None) -> LinearComponents:
    with torch.device("meta"):  # what it allocates is replaced
        components = LinearComponents(V.shape[0], U.shape[1], V.shape[1], bias=bias is not None)
    components.V, components.U, components.bias = V, U, bias
    return components
