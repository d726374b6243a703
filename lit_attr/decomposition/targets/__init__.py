"""The target models that decomposition runs are trained on, by class name."""

from dataclasses import fields
from typing import Any

from lit_attr.decomposition.targets.gpt2_simple import GPT2Simple, GPT2SimpleConfig
from lit_attr.decomposition.targets.llama_simple import (
    LlamaSimple,
    LlamaSimpleConfig,
    LlamaSimpleMLP,
    LlamaSimpleMLPConfig,
)
from lit_attr.decomposition.targets.target_model import ConfiguredTarget, TargetConfig
from lit_attr.errors import RunFormatError, UnsupportedModelError

TARGETS: dict[str, tuple[type[ConfiguredTarget], type[TargetConfig]]] = {
    "LlamaSimpleMLP": (LlamaSimpleMLP, LlamaSimpleMLPConfig),
    "LlamaSimple": (LlamaSimple, LlamaSimpleConfig),
    "GPT2Simple": (GPT2Simple, GPT2SimpleConfig),
}


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
        raise UnsupportedModelError(f"unknown target model class {architecture!r}; known are: {', '.join(TARGETS)}")
    model_class, config_class = TARGETS[architecture]
    options = dict(options)
    declared = options.pop("model_type", architecture)
    if declared != architecture:
        raise RunFormatError(
            f"model_config.yaml says model_type {declared!r}, the run's configuration {architecture!r}"
        )
    # An unknown entry could change what the model computes, so it is refused rather than skipped.
    known: dict[str, Any] = {f.name: type(f.default) for f in fields(config_class)}
    if unknown := sorted(options.keys() - known.keys()):
        raise RunFormatError(
            f"model_config.yaml: unknown entries {unknown} for {architecture}; known are {sorted(known)}"
        )
    for name, value in options.items():
        expected = known[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = (
            isinstance(value, bool) if expected is bool else is_number and (expected is float or isinstance(value, int))
        )
        if not fits:
            raise RunFormatError(f"model_config.yaml: {name} must be of type {expected.__name__}, found {value!r}")
        if expected is not bool and value <= 0:
            raise RunFormatError(f"model_config.yaml: {name} must be positive, found {value!r}")
    return model_class(config_class(**{name: known[name](value) for name, value in options.items()}))
