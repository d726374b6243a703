"""A run's configuration in the spelling of `final_config.yaml`, in whichever of the known forms its file has it.

goodfire-ai/spd writes flat entries. goodfire-ai/param-decomp, while it was written in torch, wrote the same ones in
sections: `pd` for the decomposition, `target` for the model, and `data`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_attr.decomposition.yaml_file import read_yaml
from lit_attr.errors import RunFormatError, UnsupportedModelError, shown

# Kind of target to the entry of its specification that says where it is.
_PLACES = {"pretrained": "run_path", "hf": "model_name", "hf_weights_in_vendored": "model_name"}
# Entry of our own: whether the target is a class of theirs that has the weights of a model of transformers.
IS_REBUILT = "pretrained_model_is_rebuilt"
# Entries of the section `pd`, and what they are called in flat files.
_DECOMPOSITION = {
    "decomposition_targets": "module_info",
    "identity_decomposition_targets": "identity_module_info",
    "ci_config": "ci_config",
    "sigmoid_type": "sigmoid_type",
    "sampling": "sampling",
    "tied_weights": "tied_weights",
    "seed": "seed",
}
# Entries of the section `data`, and what they are called among those of the task.
_DATA = {
    "dataset_name": "dataset_name",
    "column_name": "column_name",
    "max_seq_len": "max_seq_len",
    "train_split": "train_data_split",
    "eval_split": "eval_data_split",
    "is_tokenized": "is_tokenized",
    "streaming": "streaming",
    "buffer_size": "buffer_size",
    "shuffle_each_epoch": "shuffle_each_epoch",
}


def read_run_options(path: Path) -> dict[str, Any]:
    """The entries of a run's configuration.

    Args:
        path: A file of any of the names in `RUN_CONFIGS`.

    Returns:
        Its entries, as a `final_config.yaml` has them.

    Raises:
        RunFormatError: If the file cannot be read, or a section of it is not understood.
        UnsupportedModelError: If the target is of an unknown kind.
    """
    options = read_yaml(path)
    return _flattened(options, str(path)) if "pd" in options else options


def _flattened(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    decomposition, target, data = (_section(options, name, where) for name in ("pd", "target", "data"))
    spec = _section(target, "spec", where, within="target.")
    kind = spec.get("kind", "pretrained" if "run_path" in spec else None)
    if not isinstance(kind, str) or kind not in _PLACES:
        raise UnsupportedModelError(f"{where}: target.spec.kind must be one of {list(_PLACES)}, found {shown(kind)}")
    return {
        **_renamed(decomposition, _DECOMPOSITION),
        "pretrained_model_class": spec.get("model_class"),
        "pretrained_model_name": spec.get(_PLACES[kind]),
        IS_REBUILT: kind == "hf_weights_in_vendored",
        "tokenizer_name": data.get("tokenizer_name"),
        "task_config": {"task_name": "lm", **_renamed(data, _DATA)},
    }


def _section(options: Mapping[str, Any], name: str, where: str, within: str = "") -> Mapping[str, Any]:
    section = options.get(name)
    if not isinstance(section, Mapping):
        raise RunFormatError(f"{where}: {within}{name} must be a mapping, found {shown(section)}")
    return section


def _renamed(section: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Entries under other names, where they are there; all others do not decide what is computed."""
    return {new: section[old] for old, new in names.items() if old in section}
