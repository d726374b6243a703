"""Loading a decomposition run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_attr.decomposition.checkpoint import load_strictly, read_checkpoint, weights_digest
from lit_attr.decomposition.ci.build import build_ci
from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.config import RunConfig, read_yaml
from lit_attr.decomposition.locate import RunFiles, locate_model_config, locate_run
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.targets import build_target
from lit_attr.errors import RunFormatError, UnsupportedModelError
from lit_attr.topology.paths import PathTable, path_table


@dataclass(frozen=True)
class Run:
    """A loaded decomposition run.

    Attributes:
        run_id: Under which results are stored.
        reference: The text that it was asked for by.
        model: The decomposed model, on the CPU.
        weights_digest: SHA-256 of its tensors.
    """

    run_id: str
    reference: str
    model: DecomposedModel
    weights_digest: str


def load_run(run: str | os.PathLike[str]) -> Run:
    """Load a decomposition run.

    Args:
        run: A run directory, a checkpoint file, a wandb reference, or `demo`. Caches are sought under
            `$LIT_ATTR_OUT_DIR`, else `$SPD_OUT_DIR`, else `./out`, and in the tree that a run directory lies in; what
            no cache holds is downloaded.

    Raises:
        RunNotFoundError: If the run or its target's configuration is nowhere.
        RunFormatError: If a file is damaged, or configuration and checkpoint contradict each other.
        UnsupportedModelError: If the target model, or a decomposed matrix of it, has no place in the attribution graph.
    """
    files, config, model_config = find_run(run)
    table = path_table(config.architecture)
    state = read_checkpoint(files.checkpoint)
    model = build_model(config, table, read_yaml(model_config), state, str(files.checkpoint))
    return Run(files.run_id, str(run), model, weights_digest(state))


def find_run(run: str | os.PathLike[str]) -> tuple[RunFiles, RunConfig, Path]:
    """Find the files of a run and of its target's architecture; download what no cache holds.

    Args:
        run: As for `load_run`.

    Returns:
        The run's files, its configuration, and the target's `model_config.yaml`.

    Raises:
        RunNotFoundError: If the run or its target's configuration is nowhere.
        RunFormatError: If the configuration is damaged.
    """
    files = locate_run(run)
    config = RunConfig.load(files.config)
    return files, config, locate_model_config(config.pretrained_name, files.config.parent)


def build_model(
    config: RunConfig, table: PathTable, model_options: Mapping[str, Any], state: Mapping[str, Tensor], where: str
) -> DecomposedModel:
    """Build a decomposed model and load its weights.

    Args:
        config: The run's configuration.
        table: Where the target keeps its matrices.
        model_options: The entries of the target's `model_config.yaml`.
        state: The checkpoint's tensors.
        where: Name of the checkpoint, for messages.

    Raises:
        RunFormatError: If configuration and checkpoint contradict each other.
        UnsupportedModelError: If a decomposed matrix has no place in the attribution graph.
    """
    with torch.random.fork_rng(
        devices=[]
    ):  # initial weights are drawn and overwritten: leave the caller's stream alone
        model = assemble_model(config, table, model_options)
    load_strictly(model, state, where)
    return model


def assemble_model(config: RunConfig, table: PathTable, model_options: Mapping[str, Any]) -> DecomposedModel:
    """Build a decomposed model with untrained weights; arguments and errors as for `build_model`."""
    target = build_target(config.architecture, dict(model_options))
    counts = expand_patterns(config.module_patterns, target)
    for path in counts:
        if path in (table.embed, table.output):
            raise UnsupportedModelError(
                f"the run decomposes {path!r}: attributions start at the undecomposed embedding ({table.embed!r}) "
                f"and end at the undecomposed unembedding ({table.output!r})"
            )
    components = {path: _components_of(target.get_submodule(path), count) for path, count in counts.items()}
    return DecomposedModel(
        target,
        table,
        components,
        build_ci(config.ci, components),
        config,
        vocab_size=target.config.vocab_size,
        block_size=target.config.block_size,
    )


def expand_patterns(patterns: tuple[tuple[str, int], ...], target: nn.Module) -> dict[str, int]:
    """The decomposed matrices that the patterns stand for.

    Args:
        patterns: `fnmatch` patterns (`*` matches dots too) with numbers of components.
        target: The target model.

    Returns:
        Path to number of components in *module order*: pattern by pattern, within a pattern in registration order.

    Raises:
        RunFormatError: If a pattern matches nothing, or a matrix is matched twice, or a match is no matrix.
    """
    counts: dict[str, int] = {}
    for pattern, count in patterns:
        matched = [path for path, _ in target.named_modules() if fnmatchcase(path, pattern)]
        if not matched:
            raise RunFormatError(f"module_info: pattern {pattern!r} matches no module of {type(target).__name__}")
        for path in matched:
            module = target.get_submodule(path)
            if not isinstance(module, nn.Linear | nn.Embedding):
                raise RunFormatError(
                    f"module_info: pattern {pattern!r} matches {path!r}, not a matrix: {type(module).__name__}"
                )
            if path in counts:
                raise RunFormatError(f"module_info: {path!r} is matched twice, the second time by {pattern!r}")
            counts[path] = count
    return counts


def _components_of(module: nn.Module, n_components: int) -> LinearComponents:
    if not isinstance(module, nn.Linear):
        raise RunFormatError(f"cannot decompose a {type(module).__name__}; only nn.Linear is known")
    return LinearComponents(module.in_features, module.out_features, n_components, bias=module.bias is not None)
