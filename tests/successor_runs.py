"""Runs of goodfire-ai/param-decomp, written from those of goodfire-ai/spd: the same weights in other files."""

from pathlib import Path
from typing import Any

import yaml

_DECOMPOSITION = {
    "module_info": "decomposition_targets",
    "identity_module_info": "identity_decomposition_targets",
    "ci_config": "ci_config",
    "sigmoid_type": "sigmoid_type",
    "sampling": "sampling",
    "tied_weights": "tied_weights",
    "seed": "seed",
}
_SPLITS = {"train_data_split": "train_split", "eval_data_split": "eval_split"}


def nested(options: dict[str, Any], kind: str = "pretrained") -> dict[str, Any]:
    """The entries of a `run_meta.yaml` for those of a `final_config.yaml`."""
    place = "run_path" if kind == "pretrained" else "model_name"
    spec = {"kind": kind, "model_class": options["pretrained_model_class"], place: options["pretrained_model_name"]}
    task = {_SPLITS.get(name, name): value for name, value in options.get("task_config", {}).items()}
    task.pop("task_name", None)
    return {
        "pd": {new: options[old] for old, new in _DECOMPOSITION.items() if old in options} | {"steps": 5, "losses": {}},
        "runtime": {"autocast_bf16": True, "device": "cuda", "dp": None},
        "cadence": {"train_log_every": 200},
        "target": {"spec": spec, "output_extract": 0},
        "data": {"tokenizer_name": options.get("tokenizer_name"), **task},
        "wandb": {"project": "param-decomp"},
    }


def write_successor_run(run: Path, folder: Path, kind: str = "pretrained", name: str = "run_meta.yaml") -> Path:
    """The run of a folder as the successor writes it, with links to the same checkpoint and target."""
    folder.mkdir(parents=True)
    options = yaml.safe_load((run / "final_config.yaml").read_text())
    (folder / name).write_text(yaml.safe_dump(nested(options, kind)))
    for file in run.iterdir():
        if file.name != "final_config.yaml":
            (folder / file.name).symlink_to(file)
    return folder
