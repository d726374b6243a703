"""Small decomposed models with random weights, and runs of them on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.load import Run, decompose_by_config
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.targets import build_target
from lit_attr.topology.paths import path_table

VOCAB = 11
BLOCK = 8

_SHAPE = {"vocab_size": VOCAB, "block_size": BLOCK, "n_layer": 2, "n_head": 4, "n_embd": 8}
_LLAMA = {**_SHAPE, "n_intermediate": 12, "n_key_value_heads": 2, "n_ctx": BLOCK}
MODEL_OPTIONS: dict[str, dict[str, Any]] = {"LlamaSimpleMLP": _LLAMA, "LlamaSimple": _LLAMA, "GPT2Simple": _SHAPE}
MATRICES = {
    "LlamaSimpleMLP": ["mlp.c_fc", "mlp.down_proj"],
    "LlamaSimple": ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    "GPT2Simple": ["mlp.c_fc", "mlp.down_proj"],
}
ATTENTION = ["attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj"]
ARCHITECTURES = list(MODEL_OPTIONS)


def run_options(architecture: str = "LlamaSimpleMLP", **changes: Any) -> dict[str, Any]:
    """The `final_config.yaml` of a run in which every matrix is decomposed, into 3, 4, 5... components."""
    matrices = MATRICES[architecture] + ATTENTION
    return {
        "pretrained_model_class": f"spd.pretrain.models.some.{architecture}",
        "pretrained_model_name": None,
        "module_info": [{"module_pattern": f"h.*.{m}", "C": 3 + i} for i, m in enumerate(matrices)],
        "ci_config": {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": [6]},
        "sigmoid_type": "leaky_hard",
        "sampling": "continuous",
        **changes,
    }


def toy_model(
    architecture: str = "LlamaSimpleMLP",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    model_options: dict[str, Any] | None = None,
    **changes: Any,
) -> DecomposedModel:
    """A decomposed model whose every weight is random, norms and biases included."""
    config = RunConfig.from_options(run_options(architecture, **changes), "toy")
    options = {**MODEL_OPTIONS[architecture], **(model_options or {})}
    model = decompose_by_config(build_target(architecture, options), config, path_table(architecture)).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if "inv_freq" not in name:
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=dtype) * 0.6)
    return model


def toy_run(**options: Any) -> Run:
    """A loaded run of a toy model."""
    return Run("s-toytoy00", "toy", toy_model(**options), "0" * 64)


def write_run(
    folder: Path,
    architecture: str = "LlamaSimpleMLP",
    seed: int = 0,
    step: int = 10,
    model_options: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A run of a float32 toy model on disk, its target's configuration beside it."""
    model = toy_model(architecture, torch.float32, seed, model_options, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "final_config.yaml").write_text(yaml.safe_dump(run_options(architecture, **changes)))
    options = {"model_type": architecture, **MODEL_OPTIONS[architecture], **(model_options or {})}
    (folder / "model_config.yaml").write_text(yaml.safe_dump(options))
    torch.save(model.state_dict(), folder / f"model_{step}.pth")
    return folder


def random_tokens(n_rows: int, seq_len: int = BLOCK, seed: int = 0, vocab: int = VOCAB) -> torch.Tensor:
    """Token ids, uniformly at random."""
    return torch.randint(0, vocab, (n_rows, seq_len), generator=torch.Generator().manual_seed(seed))


def write_tokens(path: Path, n_rows: int, seq_len: int = BLOCK, seed: int = 0) -> Path:
    """A token file."""
    np.save(path, random_tokens(n_rows, seq_len, seed).numpy().astype(np.uint16))
    return path
