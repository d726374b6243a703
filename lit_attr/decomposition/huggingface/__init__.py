"""Causal language models of `transformers` as target models."""

from lit_attr.decomposition.huggingface.pretrained import (
    build_from_config,
    find_pretrained,
    load_pretrained,
    without_weights,
)
from lit_attr.decomposition.huggingface.rebuilt import rebuilt_options

__all__ = ["build_from_config", "find_pretrained", "load_pretrained", "rebuilt_options", "without_weights"]
