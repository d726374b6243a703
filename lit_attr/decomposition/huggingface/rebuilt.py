"""Models of `transformers` whose weights a target of decomposition runs was given: the same shape, other matrices."""

from pathlib import Path
from typing import Any

from lit_attr.decomposition.huggingface.pretrained import config_of_target
from lit_attr.errors import UnsupportedModelError, shown

_ARCHITECTURE = "GPT2Simple"
# What GPT2Simple takes for granted, by the entry of GPT-2's `config.json`.
_FIXED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
_SHAPE = {
    "block_size": "n_positions",
    "vocab_size": "vocab_size",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
}


def rebuilt_options(architecture: str, name: str | None, folder: Path) -> dict[str, Any]:
    """The entries of the `model_config.yaml` of a target that has the weights of a model of `transformers`.

    Args:
        architecture: Class name of the target.
        name: Folder of the model of `transformers`, or its name on the hub.
        folder: The run's own folder, the first to be searched for a `config.json`.

    Raises:
        UnsupportedModelError: If the class is not known, or cannot be that model.
        RunNotFoundError: If no place has a `config.json`.
        ConfigurationError: If `transformers` is not installed.
    """
    if architecture != _ARCHITECTURE:
        raise UnsupportedModelError(
            f"target.spec.kind hf_weights_in_vendored is known for {_ARCHITECTURE}, found {shown(architecture)}"
        )
    place, config = config_of_target(name, folder)
    width = getattr(config, "n_embd", None)
    fixed = {**_FIXED, "n_inner": config.n_inner if getattr(config, "n_inner", None) == 4 * (width or 0) else None}
    for entry, expected in fixed.items():
        if (found := getattr(config, entry, None)) != expected:
            raise UnsupportedModelError(
                f"{place} cannot be rebuilt as {architecture}: {entry} must be {expected}, found {shown(found)}"
            )
    return {ours: getattr(config, theirs) for ours, theirs in _SHAPE.items()}
