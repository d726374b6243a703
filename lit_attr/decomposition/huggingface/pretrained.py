"""Loading models of `transformers`, from local folders or the hub."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_attr.decomposition.huggingface.target import as_target
from lit_attr.decomposition.sizes import MAX_BLOCKS, without_numbers
from lit_attr.decomposition.targets.target_model import TargetModel
from lit_attr.errors import RunFormatError, RunNotFoundError, UnsupportedModelError, few, naming, reason, shown
from lit_attr.files.roots import user_path
from lit_attr.optional import require
from lit_attr.topology.paths import PathTable, path_table

_CONFIG = "config.json"
_WEIGHTS = ("*.safetensors", "*.bin")
# Fused attention kernels have no rule for gradients of many targets at once.
_ATTENTION = "eager"


def load_pretrained(reference: str, table: PathTable | None = None) -> tuple[TargetModel, PathTable]:
    """Load a language model with its weights, in float32.

    Args:
        reference: A local folder, or the model's name on the hub.
        table: Path table of the model; None for the package's own table of its class.

    Returns:
        The model, and the table.

    Raises:
        RunNotFoundError: If there is no such model.
        RunFormatError: If weights are missing.
        UnsupportedModelError: If the class is not known, or keeps its matrices elsewhere.
        ConfigurationError: If `transformers` is not installed.
    """
    reference = _name(reference)
    config, table = find_pretrained(reference, table)
    architecture = table.architecture
    model_class = _library_class(architecture)
    try:
        _check_size(without_numbers(lambda: model_class(config), reference), Path(reference))
        model, report = model_class.from_pretrained(
            reference,
            config=config,
            dtype=torch.float32,
            attn_implementation=_ATTENTION,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report
        )
    except Exception as error:  # the library raises many kinds for a damaged file, and passes others on
        raise RunFormatError(f"cannot read the weights of {reference}: {reason(error)}") from error
    _check_report(report, reference, architecture)
    return as_target(model, table), table


def without_weights(reference: str, table: PathTable | None = None) -> tuple[TargetModel, PathTable]:
    """Build a language model without numbers; arguments and errors as for `find_pretrained`.

    Returns:
        The model, whose tensors have names, shapes and dtypes, and the table.
    """
    reference = _name(reference)
    config, table = find_pretrained(reference, table)
    known = table
    config._attn_implementation = _ATTENTION
    model_class = _library_class(table.architecture)
    return without_numbers(lambda: as_target(model_class(config), known), reference), table


def _check_size(model: nn.Module, folder: Path) -> None:
    """Refuse a configuration of more numbers than a folder's files have bits: the library would draw the others."""
    n_bytes = sum(path.stat().st_size for pattern in _WEIGHTS for path in folder.glob(pattern))
    n_numbers = sum(parameter.numel() for parameter in model.parameters())
    if folder.is_dir() and n_numbers > 8 * n_bytes:
        raise RunFormatError(f"its {_CONFIG} is that of {n_numbers:,} numbers, its files have {n_bytes:,} bytes")


def _check_report(report: Mapping[str, Collection[Any]], reference: str, architecture: str) -> None:
    """Refuse weights that are not all of the model and nothing else: the library would draw or drop them."""
    shapes = sorted(
        f"{name} (expected {tuple(wanted)}, found {tuple(given)})" for name, given, wanted in report["mismatched_keys"]
    )
    problems = {
        "lack": sorted(report["missing_keys"]),
        "have in other shapes": shapes,
        "have beyond those": sorted(report["unexpected_keys"]),
    }
    for what, names in problems.items():
        if names:
            raise RunFormatError(
                f"the weights of {reference} are not those of its {architecture}, of whose tensors they {what} "
                f"{len(names)}: {few(names)}"
            )


def find_pretrained(reference: str, table: PathTable | None = None) -> tuple[Any, PathTable]:
    """Read a language model's configuration, and see whether its class is known; no weights are needed.

    Args:
        reference: A local folder, or the model's name on the hub.
        table: Path table of the model; None for the package's own table of its class.

    Returns:
        The configuration, a `PretrainedConfig`, and the table.

    Raises:
        RunNotFoundError: If there is no such model.
        UnsupportedModelError: If the class is not known.
        ConfigurationError: If `transformers` is not installed.
    """
    reference = _name(reference)
    config = _read_config(reference)
    if not config.architectures:
        raise UnsupportedModelError(f"{reference}: its {_CONFIG} names no class (architectures)")
    architecture = config.architectures[0]
    with naming(reference):
        table = table or path_table(architecture)
    if table.architecture != architecture:
        raise UnsupportedModelError(f"the path table is of {table.architecture}, but {reference} is a {architecture}")
    return config, table


def build_from_config(architecture: str, name: str | None, folder: Path, table: PathTable) -> TargetModel:
    """Build the target of a decomposition run with untrained weights; the run's checkpoint holds the trained ones.

    Args:
        architecture: Name of the model class.
        name: The run's `pretrained_model_name`: a local folder, or a name on the hub.
        folder: The run's own folder, the first to be searched for a `config.json`.
        table: Path table of the class.

    Raises:
        RunNotFoundError: If no place has a `config.json`.
        UnsupportedModelError: If the configuration is that of another class.
        ConfigurationError: If `transformers` is not installed.
    """
    place, config = config_of_target(name, folder)
    if config.architectures and (declared := config.architectures[0]) != architecture:
        raise UnsupportedModelError(f"{place} is a {declared}, but the run's configuration says {architecture}")
    config._attn_implementation = _ATTENTION
    return as_target(_library_class(architecture)(config), table)


def config_of_target(name: str | None, folder: Path) -> tuple[str, Any]:
    """Find and read the `config.json` of a decomposition run's target.

    Args:
        name: The run's `pretrained_model_name`: a local folder, or a name on the hub.
        folder: The run's own folder, the first to be searched.

    Returns:
        Where it is, and the configuration, a `PretrainedConfig`.

    Raises:
        RunNotFoundError: If no place has one.
        RunFormatError: If it is damaged.
        ConfigurationError: If `transformers` is not installed.
    """
    places = [folder, *((folder / name, user_path(name)) if name else ())]
    place = next((str(place) for place in places if (place / _CONFIG).is_file()), name)
    if place is None:
        raise RunNotFoundError(f"no {_CONFIG} for the target model; looked in {folder}, and the run names no model")
    try:
        return place, _read_config(place)
    except RunNotFoundError as error:
        looked_in = ", ".join(map(str, places))
        raise RunNotFoundError(f"no {_CONFIG} for the target model {name!r}: looked in {looked_in}; {error}") from error


def _name(reference: str) -> str:
    """The name that the library takes: of a folder, or on the hub."""
    path = user_path(reference)
    return str(path) if path.exists() else reference


def _library_class(architecture: str) -> type[Any]:
    model_class = getattr(require("transformers", "hf"), architecture, None)
    if not (isinstance(model_class, type) and issubclass(model_class, nn.Module)):
        raise UnsupportedModelError(f"the installed transformers has no model class {architecture!r}")
    return model_class


def _read_config(reference: str) -> Any:  # noqa: ANN401 - a class of an optional library
    transformers = require("transformers", "hf")
    try:
        config = transformers.AutoConfig.from_pretrained(reference)
    except Exception as error:  # missing, damaged, no network, unknown model type: many kinds
        why = next(iter(reason(error).splitlines()))
        if (Path(reference) / _CONFIG).is_file():
            raise RunFormatError(f"cannot read {Path(reference) / _CONFIG}: {why}") from error
        raise RunNotFoundError(
            f"no model at {reference!r}: expected a local folder with a {_CONFIG}, or a name on the Hugging Face hub "
            f"({why})"
        ) from error
    names = config.architectures
    if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
        raise RunFormatError(f"{reference}: expected names of classes (architectures), found {shown(names)}")
    depth = getattr(config, "num_hidden_layers", 1)
    if type(depth) is not int or not 0 < depth <= MAX_BLOCKS:
        raise RunFormatError(f"{reference}: expected a model of 1 to {MAX_BLOCKS} blocks, found {shown(depth)}")
    return config
