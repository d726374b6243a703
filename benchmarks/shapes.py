"""Models and causal importances to measure with: named shapes with random weights, and runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from lit_attr.decomposition.ci.layerwise import dashed
from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.load import decompose_by_config, load_run
from lit_attr.decomposition.matrix import forward_with_inputs
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.run_files import MODEL_CONFIG, RUN_CONFIGS
from lit_attr.decomposition.targets import build_target
from lit_attr.topology.graph import Topology
from lit_attr.topology.layout import Layout
from lit_attr.topology.paths import path_table


@dataclass(frozen=True)
class Shape:
    """A model and its decomposition.

    Attributes:
        n_layer: Number of blocks.
        d_model: Width of the residual stream.
        d_ff: Width of the hidden layers.
        n_head: Number of query heads.
        n_kv_head: Number of key and value heads.
        vocab: Number of token ids.
        seq_len: Number of positions of a sequence.
        components: Matrix to its number of components.
        architecture: Class of the model.
    """

    n_layer: int
    d_model: int
    d_ff: int
    n_head: int
    n_kv_head: int
    vocab: int
    seq_len: int
    components: dict[str, int] = field(default_factory=dict)
    architecture: str = "LlamaSimpleMLP"


_ATTENTION = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj")
_MATRICES = ("mlp.c_fc", "mlp.down_proj", *_ATTENTION)
_GATED = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", *_ATTENTION)
# Name of a choice to the beginning of the names of the decomposed matrices.
DECOMPOSED = {"all": "", "mlp": "mlp.", "attention": "attn."}
SHAPES = {
    "ss-2l": Shape(2, 128, 512, 4, 2, 4019, 128, dict.fromkeys(_MATRICES, 650)),
    "pile-4l": Shape(
        4, 768, 3072, 12, 3, 50277, 512, dict(zip(_MATRICES, (3072, 3584, 512, 512, 1024, 1024), strict=True))
    ),
    # Two blocks of Llama-3.2-1B, each matrix of as many components as its rank; of its 128,256 token ids the first.
    "llama-1b-2l": Shape(
        *(2, 2048, 8192, 32, 8, 16384, 512),
        dict(zip(_GATED, (2048, 2048, 2048, 2048, 512, 512, 2048), strict=True)),
        "LlamaSimple",
    ),
}


def _options(shape: Shape, decomposed: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configurations of a run and of its target."""
    chosen = {matrix: count for matrix, count in shape.components.items() if matrix.startswith(DECOMPOSED[decomposed])}
    config = {
        "pretrained_model_class": f"spd.pretrain.models.{shape.architecture}",
        "pretrained_model_name": None,
        "module_info": [{"module_pattern": f"h.*.{matrix}", "C": count} for matrix, count in chosen.items()],
        "ci_config": {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": [16]},
        "sigmoid_type": "leaky_hard",
        "sampling": "continuous",
    }
    model_config = {
        "model_type": shape.architecture,
        "vocab_size": shape.vocab,
        "block_size": shape.seq_len,
        "n_ctx": shape.seq_len,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "n_embd": shape.d_model,
        "n_intermediate": shape.d_ff,
        "n_key_value_heads": shape.n_kv_head,
    }
    return config, model_config


def build(shape: Shape, seed: int = 0, decomposed: str = "all") -> DecomposedModel:
    """A model of a shape with random weights, activations of about unit size.

    Args:
        shape: Shape of the model.
        seed: Seed of the weights.
        decomposed: Matrices that are decomposed: `all`, those of the `mlp`, or those of the `attention`.
    """
    config, model_config = _options(shape, decomposed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        target = build_target(shape.architecture, model_config)
        model = decompose_by_config(target, RunConfig.from_options(config, "benchmark"), path_table(shape.architecture))
        for layer in model.paths:
            components = model.components(layer)
            components.V.normal_(std=components.V.shape[0] ** -0.5)
            components.U.normal_(std=components.U.shape[0] ** -0.5)
    return model


def write_run(folder: Path, shape: Shape, density: float) -> None:
    """Write a run of a shape to disk, where the CI of every component is non-zero at a share of random tokens.

    Args:
        folder: Where the run is written.
        shape: Shape of the model.
        density: Share of the tokens.
    """
    model = build(shape)
    tokens = torch.randint(0, shape.vocab, (8, shape.seq_len), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, inputs = forward_with_inputs(model.target_model, model.paths.values(), tokens)
        pre_sigmoid = dict(model.ci_fn(inputs))
    state = model.state_dict()
    for path, values in pre_sigmoid.items():
        *_, last_bias = (x for name, x in state.items() if name.startswith(f"ci_fn._ci_fns.{dashed(path)}."))
        last_bias -= values.flatten(0, 1).quantile(1 - density, dim=0)
    folder.mkdir(parents=True)
    for name, options in zip((RUN_CONFIGS[0], MODEL_CONFIG), _options(shape, "all"), strict=True):
        (folder / name).write_text(yaml.safe_dump(options))
    torch.save(state, folder / "model_0.pth")


def random_ci(model: DecomposedModel, tokens: Tensor, density: float, seed: int = 0) -> dict[str, Tensor]:
    """Causal importances that are uniform on [0, 1) at random entries, and zero elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(tokens.shape)
    return {
        layer: (
            torch.rand(*shape, count, generator=generator) * (torch.rand(*shape, count, generator=generator) < density)
        ).to(tokens.device)
        for layer, count in model.n_components.items()
    }


def model_and_tokens(
    name: str, batch: int, tokens: str | None, decomposed: str = "all", seed: int = 0
) -> tuple[DecomposedModel, Tensor]:
    """A model of a named shape or of a run, and tokens for it, from a file or uniformly random."""
    if name in SHAPES:
        model, seq_len = build(SHAPES[name], seed, decomposed), SHAPES[name].seq_len
    elif decomposed != "all":
        raise SystemExit(f"--decomposed {decomposed} is for shapes: which matrices of a run are decomposed is its own")
    else:
        model = load_run(name).model
        seq_len = min(model.block_size, 128)
    if tokens is not None:
        rows = np.load(Path(tokens), mmap_mode="r")[:batch].astype(np.int64)
        return model, torch.from_numpy(rows)
    generator = torch.Generator().manual_seed(seed)
    return model, torch.randint(0, model.vocab_size, (batch, seq_len), generator=generator)


def all_targets(topology: Topology) -> dict[str, Tensor]:
    """All components, as targets."""
    return {layer: torch.ones(n, dtype=torch.bool) for layer, n in topology.n_components.items()}


def all_sums(topology: Topology) -> Layout:
    """The sums of both metrics with all components as targets."""
    return Layout.of(topology, all_targets(topology), "both")
