"""Building the causal-importance function that a run's `ci_config` describes."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from lit_attr.decomposition.ci.layerwise import ActivationMLP, LayerwiseCI, SharedMLP, VectorMLP, dashed
from lit_attr.decomposition.ci.whole_model import (
    AttentionOptions,
    GlobalCI,
    GlobalReverseResidual,
    GlobalSharedMLP,
    GlobalSharedTransformer,
    Group,
)
from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.sizes import MAX_BLOCKS, MAX_WIDTH
from lit_attr.errors import RunFormatError, few, shown

Components = Mapping[str, LinearComponents]

_CHOICE = ("mode", "fn_type")
_LAYERWISE = {"mlp": ActivationMLP, "vector_mlp": VectorMLP, "shared_mlp": SharedMLP}


def build_ci(options: Mapping[str, Any], components: Components) -> nn.Module:
    """Build a causal-importance function with untrained weights.

    Args:
        options: The run's `ci_config`.
        components: Path of each decomposed matrix to its components, in module order.

    Raises:
        RunFormatError: If the options are incomplete, unknown or contradictory.
    """
    mode, fn_type = (given if isinstance(given := options.get(name), str) else shown(given) for name in _CHOICE)
    if mode == "layerwise" and fn_type in _LAYERWISE:
        hidden = _require(options, "hidden_dims", "a list of positive integers")
        if fn_type != "shared_mlp" and not hidden:
            raise RunFormatError(f"ci_config: hidden_dims must not be empty for fn_type {fn_type!r}")
        return LayerwiseCI({path: _LAYERWISE[fn_type](c, hidden) for path, c in components.items()})
    builder = _GLOBAL.get(fn_type) if mode == "global" else None
    if builder is None:
        known = [f"layerwise/{name}" for name in _LAYERWISE] + [f"global/{name}" for name in _GLOBAL]
        raise RunFormatError(f"ci_config: unknown mode/fn_type {mode:.50}/{fn_type:.50}; known are: {', '.join(known)}")
    return GlobalCI(builder(options, components))


def _is_width(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_WIDTH


_A_DEPTH = f"a positive integer of at most {MAX_BLOCKS}"
# What an entry may hold, by the words that a message says it with.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "a positive integer": _is_width,
    _A_DEPTH: lambda value: _is_width(value) and value <= MAX_BLOCKS,
    "a list of positive integers": lambda value: isinstance(value, list) and all(map(_is_width, value)),
    "a positive number": lambda value: isinstance(value, int | float) and value > 0,
    "a mapping": lambda value: isinstance(value, Mapping),
    "a list of {name: text, patterns: list of texts}": lambda value: (
        isinstance(value, list) and bool(value) and all(map(_is_group, value))
    ),
}


def _is_group(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    patterns = value.get("patterns")
    is_list = isinstance(patterns, list) and bool(patterns) and all(isinstance(pattern, str) for pattern in patterns)
    return isinstance(value.get("name"), str) and is_list


def _require(options: Mapping[str, Any], key: str, kind: str) -> Any:  # noqa: ANN401 - of that kind
    value = options.get(key)
    if value is None:
        raise RunFormatError(f"ci_config: {key!r} is missing; found [{few(sorted(map(shown, options)))}]")
    if not _KINDS[kind](value):
        raise RunFormatError(f"ci_config: {key} must be {kind}, found {shown(value)}")
    return value


def _attention(options: Mapping[str, Any], key: str) -> AttentionOptions:
    given = _require(options, key, "a mapping")
    kinds = {"n_heads": "a positive integer", "max_len": "a positive integer", "rope_base": "a positive number"}
    _require(given, "n_heads", kinds["n_heads"])
    chosen = {name: _require(given, name, kind) for name, kind in kinds.items() if given.get(name) is not None}
    return AttentionOptions(**chosen)


def _all_sorted(components: Components) -> Group:
    return Group.of(components, sorted(components))


def _shared_mlp(options: Mapping[str, Any], components: Components) -> nn.Module:
    if options.get("transition_attn_config") is not None:
        raise RunFormatError("ci_config: transition_attn_config has no meaning for global_shared_mlp")
    hidden = _require(options, "hidden_dims", "a list of positive integers")
    return GlobalSharedMLP(_all_sorted(components), hidden)


def _shared_transformer(options: Mapping[str, Any], components: Components) -> nn.Module:
    shape = _require(options, "simple_transformer_ci_cfg", "a mapping")
    return GlobalSharedTransformer(
        _all_sorted(components),
        d_model=_require(shape, "d_model", "a positive integer"),
        n_blocks=_require(shape, "n_blocks", _A_DEPTH),
        hidden=_require(shape, "mlp_hidden_dim", "a list of positive integers"),
        attention=_attention(shape, "attn_config"),
    )


def _reverse_residual(options: Mapping[str, Any], components: Components) -> nn.Module:
    groups = _require(options, "block_groups", "a list of {name: text, patterns: list of texts}")
    names = [dashed(group["name"]) for group in groups]
    if len(set(names)) < len(names):
        raise RunFormatError(f"ci_config: block_groups have names that are equal, or equal but for . and -: {names}")
    patterns = {group["name"]: group["patterns"] for group in groups}
    transition = options.get("transition_hidden_dim")
    attends = options.get("transition_attn_config") is not None
    return GlobalReverseResidual(
        {name: Group.of(components, paths) for name, paths in _assign_groups(patterns, components).items()},
        width=_require(options, "d_resid_ci_fn", "a positive integer"),
        reader_hidden=_require(options, "reader_hidden_dims", "a list of positive integers"),
        transition_hidden=None
        if transition is None
        else _require(options, "transition_hidden_dim", "a positive integer"),
        attention=_attention(options, "transition_attn_config") if attends else None,
    )


def _assign_groups(patterns: Mapping[str, Sequence[str]], components: Components) -> dict[str, list[str]]:
    """The matrices of each group, pattern by pattern in module order; each matrix must be matched exactly once."""
    groups: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name, group_patterns in patterns.items():
        groups[name] = []
        for pattern in group_patterns:
            matched = [path for path in components if fnmatchcase(path, pattern)]
            if not matched:
                raise RunFormatError(
                    f"ci_config: pattern {pattern!r} of block group {name!r} matches no decomposed matrix"
                )
            if twice := seen.intersection(matched):
                raise RunFormatError(f"ci_config: {sorted(twice)} matched twice by the patterns of block_groups")
            seen.update(matched)
            groups[name] += matched
    if missing := [path for path in components if path not in seen]:
        raise RunFormatError(f"ci_config: decomposed matrices in no block group: {missing}")
    return groups


_GLOBAL = {
    "global_shared_mlp": _shared_mlp,
    "global_shared_transformer": _shared_transformer,
    "global_reverse_residual": _reverse_residual,
}
