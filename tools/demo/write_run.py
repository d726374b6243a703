"""Writing a decomposition run in the format of goodfire-ai/spd."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.run_files import MODEL_CONFIG, RUN_CONFIGS
from lit_attr.decomposition.targets.gpt2_simple import GPT2SimpleConfig
from lit_attr.decomposition.targets.target_model import TargetModel
from lit_attr.topology.paths import path_table
from tools.demo.decompose import DecompositionTraining

_CLASS = "spd.pretrain.models.gpt2_simple.GPT2Simple"


def run_options(
    modules: Mapping[str, int],
    ci_options: Mapping[str, Any],
    training: DecompositionTraining,
    seed: int,
    context: int,
) -> dict[str, Any]:
    """The entries of a run's `final_config.yaml`.

    Args:
        modules: Pattern of each kind of matrix to its number of components.
        ci_options: Entries of the `ci_config`.
        training: How the decomposition was trained; it is recorded under the names of the format.
        seed: Seed of the decomposition.
        context: Number of tokens in a row.
    """
    penalty = {
        "classname": "ImportanceMinimalityLoss",
        "coeff": training.importance,
        "pnorm": training.exponent_start,
        "p_anneal_start_frac": 0.0,
        "p_anneal_final_p": training.exponent_end,
        "p_anneal_end_frac": training.anneal_end,
    }
    return {
        "seed": seed,
        "autocast_bf16": False,
        "ci_config": dict(ci_options),
        "sampling": "continuous",
        "sigmoid_type": "leaky_hard",
        "module_info": [{"module_pattern": pattern, "C": count} for pattern, count in modules.items()],
        "identity_module_info": None,
        "use_delta_component": False,
        "loss_metric_configs": [
            penalty,
            {"classname": "StochasticReconLoss", "coeff": 1.0},
            {"classname": "CIMaskedReconLoss", "coeff": 1.0},
            {"classname": "FaithfulnessLoss", "coeff": training.faithfulness},
        ],
        "output_loss_type": "kl",
        "lr_schedule": {"start_val": training.learning_rate, "fn_type": "cosine", "final_val_frac": 0.0},
        "steps": training.steps,
        "batch_size": training.batch_size,
        "faithfulness_warmup_steps": training.faithfulness_steps,
        "pretrained_model_class": _CLASS,
        "pretrained_model_path": None,
        "pretrained_model_name": None,
        "pretrained_model_output_attr": "idx_0",
        "tokenizer_name": "lit_attr-demo",
        "task_config": {
            "task_name": "lm",
            "max_seq_len": context,
            "dataset_name": "lit_attr-demo",
            "column_name": "input_ids",
            "is_tokenized": True,
            "streaming": False,
        },
    }


def decomposed_model(
    target: TargetModel,
    config: GPT2SimpleConfig,
    components: Mapping[str, LinearComponents],
    ci_fn: nn.Module,
    options: Mapping[str, Any],
) -> DecomposedModel:
    """The parts of a run as one model, whose state is the run's checkpoint."""
    run_config = RunConfig.from_options(options, RUN_CONFIGS[0])
    table = path_table(run_config.architecture)
    return DecomposedModel(
        target, table, components, ci_fn, run_config, vocab_size=config.vocab_size, block_size=config.block_size
    )


def write_run(folder: Path, model: DecomposedModel, config: GPT2SimpleConfig, options: Mapping[str, Any]) -> None:
    """Write a run folder: configuration, checkpoint, and the target's configuration.

    Args:
        folder: Folder of the run; made if it is not there.
        model: Target, components and causal-importance function.
        config: Shape of the target.
        options: Entries of the run's configuration, from `run_options`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_CONFIGS[0]).write_text(yaml.safe_dump(dict(options), sort_keys=False), encoding="utf-8")
    target_options = {"model_type": "GPT2Simple", **asdict(config)}
    (folder / MODEL_CONFIG).write_text(yaml.safe_dump(target_options, sort_keys=False), encoding="utf-8")
    torch.save(model.state_dict(), folder / f"model_{options['steps']}.pth")
