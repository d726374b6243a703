"""Targets of every known class."""

import torch

from lit_attr.decomposition.targets.target_model import TargetModel
from lit_attr.topology.paths import PathTable, path_table
from tests.huggingface_toys import VARIANTS, huggingface_target
from tests.toys import ARCHITECTURES, toy_model

NAMES = [*ARCHITECTURES, "gpt2", "llama", "llama, biases, wide heads", "mistral, window", "qwen2", "qwen3", "gpt-neox"]


def make_target(name: str, dtype: torch.dtype = torch.float64) -> tuple[TargetModel, PathTable]:
    """A target with random weights, and its table."""
    if name in ARCHITECTURES:
        return toy_model(name, dtype).target_model, path_table(name)
    return huggingface_target(name, dtype), path_table(VARIANTS[name][0])
