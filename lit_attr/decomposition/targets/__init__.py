"""The target models that decomposition runs are trained on, by class name."""

from dataclasses import fields
from typing import Any

from lit_attr.decomposition.sizes import MAX_BLOCKS, MAX_WIDTH
from lit_attr.decomposition.targets.gpt2_simple import GPT2Simple, GPT2SimpleConfig
from lit_attr.decomposition.targets.llama_simple import (
    LlamaSimple,
    LlamaSimpleConfig,
    LlamaSimpleMLP,
    LlamaSimpleMLPConfig,
)
from lit_attr.decomposition.targets.target_model import ConfiguredTarget, TargetConfig
from lit_attr.errors import RunFormatError, UnsupportedModelError, few, shown

TARGETS: dict[str, tuple[type[ConfiguredTarget], type[TargetConfig]]] = {
    "LlamaSimpleMLP": (LlamaSimpleMLP, LlamaSimpleMLPConfig),
    "LlamaSimple": (LlamaSimple, LlamaSimpleConfig),
    "GPT2Simple": (GPT2Simple, GPT2SimpleConfig),
}

# Tables of positions, and loops over blocks, are no tensors of a checkpoint, with which all else is compared.
_LARGEST = {"n_layer": MAX_BLOCKS, "n_ctx": 1 << 20, "block_size": 1 << 24}


def build_target(architecture: str, options: dict[str, Any]) -> ConfiguredTarget:
    """Build a target model with untrained weights.

    Args:
        architecture: Class name, a key of `TARGETS`.
        options: The entries of its `model_config.yaml`; `model_type` may be among them.

    Raises:
        UnsupportedModelError: If the class is not known.
        RunFormatError: If an entry is unknown, contradictory or of the wrong kind.
    """
    if architecture not in TARGETS:
        raise UnsupportedModelError(
            f"unknown target model class {shown(architecture)}; known are: {', '.join(TARGETS)}"
        )
    model_class, config_class = TARGETS[architecture]
    options = dict(options)
    declared = options.pop("model_type", architecture)
    if declared != architecture:
        raise RunFormatError(
            f"model_config.yaml says model_type {shown(declared)}, the run's configuration {architecture!r}"
        )
    # An unknown entry could change what the model computes, so it is refused rather than skipped.
    known: dict[str, Any] = {f.name: type(f.default) for f in fields(config_class)}
    if unknown := sorted(shown(name) for name in options.keys() - known.keys()):
        raise RunFormatError(
            f"model_config.yaml: unknown entries [{few(unknown)}] for {architecture}; known are {sorted(known)}"
        )
    for name, value in options.items():
        expected = known[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = (
            isinstance(value, bool) if expected is bool else is_number and (expected is float or isinstance(value, int))
        )
        if not fits:
            raise RunFormatError(f"model_config.yaml: {name} must be of type {expected.__name__}, found {shown(value)}")
        if expected is not bool and not 0 < value <= _LARGEST.get(name, MAX_WIDTH):
            raise RunFormatError(
                f"model_config.yaml: {name} must be positive, found {shown(value)}"
                if value <= 0
                else f"model_config.yaml: {name} must be at most {_LARGEST.get(name, MAX_WIDTH)}, found {shown(value)}"
            )
    return model_class(config_class(**{name: known[name](value) for name, value in options.items()}))
