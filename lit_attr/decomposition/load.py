"""Loading a decomposition run."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lit_attr.decomposition.checkpoint import check_fits, read_checkpoint, tied, weights_digest
from lit_attr.decomposition.ci.build import build_ci
from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.huggingface import build_from_config, rebuilt_options
from lit_attr.decomposition.locate import RunFiles, locate_config, locate_model_config, locate_run
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.patterns import components_of, expand_patterns
from lit_attr.decomposition.sizes import without_numbers
from lit_attr.decomposition.targets import TARGETS, build_target
from lit_attr.decomposition.targets.target_model import TargetModel
from lit_attr.decomposition.widening import keep_bfloat16_
from lit_attr.decomposition.yaml_file import read_yaml
from lit_attr.errors import RunFormatError, UnsupportedModelError, naming, shown
from lit_attr.files.roots import could_be_path
from lit_attr.topology.paths import PathTable, path_table

# Masks and frequencies that older versions of transformers saved, and newer ones compute.
_OLD_BUFFER = re.compile(r"target_model\..*\.((attn|attention)\.(masked_)?bias|rotary_emb\.inv_freq)")


@dataclass(frozen=True)
class Run:
    """A loaded decomposition run.

    Attributes:
        run_id: Id under which results are stored.
        reference: Text by which the run was asked for.
        model: The decomposed model, on the CPU; matrices that were stored in bfloat16 are kept in it.
        weights_digest: SHA-256 of the tensors that it was loaded from.
        decomposition: Description that identifies a decomposition without training; None for one that was trained.
        checkpoint: File name of the checkpoint that was loaded; None without training.
    """

    run_id: str
    reference: str
    model: DecomposedModel
    weights_digest: str
    decomposition: Mapping[str, Any] | None = None
    checkpoint: str | None = None


def load_run(run: str | os.PathLike[str], table: PathTable | None = None) -> Run:
    """Load a decomposition run.

    Args:
        run: A run directory, a checkpoint file, a wandb reference, or `demo`. Caches are sought under the
            roots of `input_roots`, and in the tree that a run directory lies in; what no cache holds is downloaded.
        table: Path table of the target; None for the package's own table of its class.

    Raises:
        RunNotFoundError: If the run or its target's configuration is nowhere.
        RunFormatError: If a file is damaged, or configuration and checkpoint contradict each other.
        UnsupportedModelError: If the target model, or a decomposed matrix of it, has no place in the attribution graph.
    """
    files = locate_run(run)
    config, model_config = _read_configs(files.config)
    build = _builder(files.config, config, model_config, table)
    state = read_checkpoint(files.checkpoint)
    expected = without_numbers(build, str(files.config))
    known = expected.state_dict()
    loaded = {name: tensor for name, tensor in state.items() if name in known or not _OLD_BUFFER.fullmatch(name)}
    with naming(files.config):
        loaded = tied(loaded, config.tied_weights)
    check_fits(expected, loaded, str(files.checkpoint))
    # Initial weights are drawn and overwritten: leave the caller's stream alone.
    with torch.random.fork_rng(devices=[]):
        model = build()
    model.load_state_dict(loaded)
    keep_bfloat16_(model)
    return Run(files.run_id, str(run), model, weights_digest(state), checkpoint=files.checkpoint.name)


def load_without_numbers(run: str | os.PathLike[str], table: PathTable | None = None) -> DecomposedModel:
    """The model of a run without numbers: names, shapes and dtypes, from configurations alone.

    Args:
        run: A run as for `load_run`; a directory needs no checkpoint.
        table: Path table of the target; None for the package's own table of its class.

    Raises:
        RunNotFoundError: If the run or its target's configuration is nowhere.
        RunFormatError: If a configuration is damaged.
        UnsupportedModelError: If the target model, or a decomposed matrix of it, has no place in the attribution graph.
    """
    config_file = locate_config(run)
    return without_numbers(_builder(config_file, *_read_configs(config_file), table), str(config_file))


def _builder(
    config_file: Path, config: RunConfig, model_config: Path | None, table: PathTable | None
) -> Callable[[], DecomposedModel]:
    """What builds a run's model from its configurations, untrained."""
    with naming(config_file):
        known = table or path_table(config.architecture)

    def build() -> DecomposedModel:
        target: TargetModel
        if config.is_rebuilt:
            options = rebuilt_options(config.architecture, config.pretrained_name, config_file.parent)
            target = build_target(config.architecture, options)
        elif model_config is None:
            target = build_from_config(config.architecture, config.pretrained_name, config_file.parent, known)
        else:
            with naming(model_config):
                target = build_target(config.architecture, read_yaml(model_config))
        with naming(config_file):
            return decompose_by_config(target, config, known)

    return build


def find_run(run: str | os.PathLike[str]) -> tuple[RunFiles, RunConfig, Path | None]:
    """Find the files of a run and of its target's architecture; download what no cache holds.

    Args:
        run: A run directory, a checkpoint file, a wandb reference, or `demo`.

    Returns:
        The run's files, its configuration, and the target's `model_config.yaml`; None in place of the last where the
        target is a model of `transformers`.

    Raises:
        RunNotFoundError: If the run or its target's configuration is nowhere.
        RunFormatError: If the configuration is damaged.
    """
    files = locate_run(run)
    return files, *_read_configs(files.config)


def find_configs(run: str | os.PathLike[str]) -> tuple[Path, Path | None]:
    """Find the configurations of a run alone; arguments and errors as for `find_run`, but that no checkpoint is needed.

    Returns:
        The run's configuration, and the target's `model_config.yaml`; None for a model of `transformers`.
    """
    config_file = locate_config(run)
    return config_file, _read_configs(config_file)[1]


def _read_configs(config_file: Path) -> tuple[RunConfig, Path | None]:
    """A run's configuration, and where that of its target is; None for a model of `transformers`."""
    config = RunConfig.load(config_file)
    if config.pretrained_name and not could_be_path(config.pretrained_name):
        found = shown(config.pretrained_name)
        raise RunFormatError(f"{config_file}: pretrained_model_name must be a path or a name, found {found}")
    if config.is_rebuilt or config.architecture not in TARGETS:
        return config, None
    return config, locate_model_config(config.pretrained_name, config_file.parent)


def decompose_by_config(target: TargetModel, config: RunConfig, table: PathTable) -> DecomposedModel:
    """Put a run's components, untrained, beside the matrices of its target.

    Args:
        target: The target model.
        config: The run's configuration.
        table: Path table of the target.

    Raises:
        RunFormatError: If the configuration does not fit the target.
        UnsupportedModelError: If a decomposed matrix has no place in the attribution graph.
    """
    counts = expand_patterns(config.module_patterns, target)
    for path in counts:
        table.address(path)  # refuses what has none
        if path in (table.embed, table.output):
            raise UnsupportedModelError(
                f"the run decomposes {path!r}: attributions start at the undecomposed embedding ({table.embed!r}) "
                f"and end at the undecomposed unembedding ({table.output!r})"
            )
    components = {path: components_of(target.get_submodule(path), count) for path, count in counts.items()}
    return DecomposedModel(
        target,
        table,
        components,
        build_ci(config.ci, components),
        config,
        vocab_size=target.n_token_ids,
        block_size=target.block_size,
    )
