"""Building the causal-importance function that a run's `ci_config` describes."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from lit_attr.decomposition.ci.layerwise import ActivationMLP, LayerwiseCI, SharedMLP, VectorMLP
from lit_attr.decomposition.ci.whole_model import (
    AttentionOptions,
    GlobalCI,
    GlobalReverseResidual,
    GlobalSharedMLP,
    GlobalSharedTransformer,
    Group,
)
from lit_attr.decomposition.components import LinearComponents
from lit_attr.errors import RunFormatError

Components = Mapping[str, LinearComponents]

_LAYERWISE = {"mlp": ActivationMLP, "vector_mlp": VectorMLP, "shared_mlp": SharedMLP}


def build_ci(options: Mapping[str, Any], components: Components) -> nn.Module:
    """Build a causal-importance function with untrained weights.

    Args:
        options: The run's `ci_config`.
        components: Path of each decomposed matrix to its components, in module order.

    Raises:
        RunFormatError: If the options are incomplete, unknown or contradictory.
    """
    mode, fn_type = options.get("mode"), options.get("fn_type")
    if mode == "layerwise" and fn_type in _LAYERWISE:
        hidden = _require(options, "hidden_dims")
        if fn_type != "shared_mlp" and not hidden:
            raise RunFormatError(f"ci_config: hidden_dims must not be empty for fn_type {fn_type!r}")
        return LayerwiseCI({path: _LAYERWISE[fn_type](c, hidden) for path, c in components.items()})
    builder = _GLOBAL.get(str(fn_type)) if mode == "global" else None
    if builder is None:
        known = [f"layerwise/{name}" for name in _LAYERWISE] + [f"global/{name}" for name in _GLOBAL]
        raise RunFormatError(f"ci_config: unknown mode/fn_type {mode}/{fn_type}; known are: {', '.join(known)}")
    return GlobalCI(builder(options, components))


def _require(options: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - a value of any YAML type
    if options.get(key) is None:
        raise RunFormatError(f"ci_config: {key!r} is missing; found {sorted(options)}")
    return options[key]


def _attention(options: Mapping[str, Any] | None) -> AttentionOptions | None:
    if options is None:
        return None
    names = ("n_heads", "max_len", "rope_base")
    _require(options, "n_heads")
    return AttentionOptions(**{name: options[name] for name in names if options.get(name) is not None})


def _all_sorted(components: Components) -> Group:
    return Group.of(components, sorted(components))


def _shared_mlp(options: Mapping[str, Any], components: Components) -> nn.Module:
    return GlobalSharedMLP(_all_sorted(components), _require(options, "hidden_dims"))


def _shared_transformer(options: Mapping[str, Any], components: Components) -> nn.Module:
    shape = _require(options, "simple_transformer_ci_cfg")
    attention = _attention(_require(shape, "attn_config"))
    if attention is None:
        raise RunFormatError("ci_config: simple_transformer_ci_cfg.attn_config is missing")
    return GlobalSharedTransformer(
        _all_sorted(components),
        d_model=_require(shape, "d_model"),
        n_blocks=_require(shape, "n_blocks"),
        hidden=_require(shape, "mlp_hidden_dim"),
        attention=attention,
    )


def _reverse_residual(options: Mapping[str, Any], components: Components) -> nn.Module:
    patterns = {group["name"]: group["patterns"] for group in _require(options, "block_groups")}
    return GlobalReverseResidual(
        {name: Group.of(components, paths) for name, paths in _assign_groups(patterns, components).items()},
        width=_require(options, "d_resid_ci_fn"),
        reader_hidden=_require(options, "reader_hidden_dims"),
        transition_hidden=options.get("transition_hidden_dim"),
        attention=_attention(options.get("transition_attn_config")),
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
