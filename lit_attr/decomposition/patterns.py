"""The matrices that the patterns of a run's configuration match, and components of their shapes."""

from fnmatch import fnmatchcase

from torch import nn

from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.matrix import bias_of, is_matrix, weight_of
from lit_attr.errors import RunFormatError


def expand_patterns(patterns: tuple[tuple[str, int], ...], target: nn.Module) -> dict[str, int]:
    """The decomposed matrices, those that the patterns match.

    Args:
        patterns: `fnmatch` patterns (`*` matches dots too) with numbers of components.
        target: The target model.

    Returns:
        Path to number of components, in *module order*: pattern by pattern, within a pattern in registration order.

    Raises:
        RunFormatError: If a pattern matches nothing, or a matrix is matched twice, or a match is no matrix.
    """
    counts: dict[str, int] = {}
    for pattern, count in patterns:
        matched = [path for path, _ in target.named_modules() if fnmatchcase(path, pattern)]
        if not matched:
            raise RunFormatError(f"module_info: pattern {pattern!r} matches no module of {type(target).__name__}")
        for path in matched:
            module = target.get_submodule(path)
            if not (is_matrix(module) or isinstance(module, nn.Embedding)):
                raise RunFormatError(
                    f"module_info: pattern {pattern!r} matches {path!r}, not a matrix: {type(module).__name__}"
                )
            if path in counts:
                raise RunFormatError(f"module_info: {path!r} is matched twice, the second time by {pattern!r}")
            counts[path] = count
    return counts


def components_of(module: nn.Module, n_components: int) -> LinearComponents:
    """Components of a matrix's shape, untrained.

    Args:
        module: The matrix.
        n_components: Number of components.

    Raises:
        RunFormatError: If the module is no matrix that can be decomposed.
    """
    if not is_matrix(module):
        raise RunFormatError(f"cannot decompose a {type(module).__name__}; only nn.Linear and Conv1D are known")
    d_in, d_out = weight_of(module).shape
    return LinearComponents(d_in, d_out, n_components, bias=bias_of(module) is not None)
