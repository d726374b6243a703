"""The attribution harvester of a checkout of goodfire-ai/spd, on a decomposition run; nothing of it is copied here."""

import importlib
import logging
import os
import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lit_attr.decomposition.checkpoint import read_checkpoint
from lit_attr.decomposition.load import find_run
from lit_attr.decomposition.yaml_file import read_yaml
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage

_HARVESTER = "spd/dataset_attributions/harvester.py"
# What importing the harvester needs beside what lit_attr needs. Later wandb and openrouter lack what it imports.
_PACKAGES = (
    "einops python-dotenv wandb<0.22 wandb-workspaces==0.1.12 orjson openrouter<0.2 datasets transformers pydantic<2.12"
)


class GoodfireSpd:
    """The code of a checkout.

    Args:
        checkout: Folder of a clone of goodfire-ai/spd, at a commit whose harvester has `attr_abs`.
        folder: Empty folder, for what its code writes when it is imported and for what it is given to read.

    Raises:
        SystemExit: If the folder holds something else, or what its code needs is not installed.
    """

    def __init__(self, checkout: Path, folder: Path) -> None:
        harvester = checkout / _HARVESTER
        if not harvester.is_file() or "finalize" not in harvester.read_text():
            raise SystemExit(
                f"--spd {checkout}: expected a checkout of goodfire-ai/spd whose {_HARVESTER} has attr_abs (branch "
                f"feature/model-editing, February 2026), found {'an older one' if harvester.is_file() else 'none'}"
            )
        if sys.version_info < (3, 12):
            raise SystemExit(
                f"goodfire-ai/spd is written for Python 3.13 and needs at least 3.12, found {sys.version.split()[0]}: "
                "make a virtual environment of that version, with lit_attr in it"
            )
        sys.path.insert(0, str(checkout))
        os.environ["SPD_OUT_DIR"] = str(folder / "spd_out")  # it makes this folder when it is imported
        try:
            self._harvester: Any = importlib.import_module("spd.dataset_attributions.harvester")
            self._model: Any = importlib.import_module("spd.models.component_model")
            self._topology: Any = importlib.import_module("spd.topology")
        except ImportError as error:
            packages = " ".join(f"'{name}'" for name in _PACKAGES.split())
            raise SystemExit(
                f"cannot import goodfire-ai/spd from {checkout}: {error}. "
                f"Beside lit_attr it needs: pip install {packages}"
            ) from error
        logging.getLogger("spd").setLevel(logging.WARNING)
        self._autocast: Callable[..., AbstractContextManager[None]] = self._harvester.bf16_autocast
        self._folder = folder

    def load(self, run: str) -> "GoodfireRun":
        """Load a run with its own code.

        Args:
            run: Whatever lit_attr takes for a run that is on disk.
        """
        checkpoint = _stage(run, self._folder / "run")
        try:
            model = self._model.ComponentModel.from_pretrained(str(checkpoint))
        except Exception as error:  # whatever its configuration's checks raise
            raise SystemExit(f"goodfire-ai/spd cannot load the run {run}: {type(error).__name__}: {error}") from error
        return GoodfireRun(self, model.eval())


class GoodfireRun:
    """A run in goodfire-ai/spd's own classes.

    Args:
        code: The code.
        model: Its `ComponentModel`.
    """

    def __init__(self, code: GoodfireSpd, model: Any) -> None:  # noqa: ANN401 - a class of the checkout
        self._code = code
        self._model = model
        self._topology = code._topology.TransformerTopology(model.target_model)
        self._sampling = "continuous"
        self._sources = code._topology.get_sources_by_target(model, self._topology, "cpu", self._sampling)
        self.restart()

    def restart(self) -> None:
        """Forget what was harvested."""
        model, topology = self._model, self._topology
        self._harvester: Any = self._code._harvester.AttributionHarvester(
            model=model,
            sources_by_target=self._sources,
            vocab_size=topology.embedding_module.num_embeddings,
            component_alive={path: torch.ones(n, dtype=torch.bool) for path, n in model.module_to_c.items()},
            sampling=self._sampling,
            embed_path=topology.path_schema.embedding_path,
            embedding_module=topology.embedding_module,
            unembed_path=topology.path_schema.unembed_path,
            unembed_module=topology.unembed_module,
            device=torch.device("cpu"),
        )

    def add(self, tokens: Tensor, *, autocast: bool) -> None:
        """Harvest one batch.

        Args:
            tokens: Token ids.
            autocast: Whether forwards run in bfloat16, as they always do in goodfire-ai/spd; otherwise in float32.
        """
        module = self._code._harvester
        module.bf16_autocast = partial(self._code._autocast, enabled=autocast)
        try:
            self._harvester.process_batch(tokens)
        finally:
            module.bf16_autocast = self._code._autocast

    def take(self) -> DatasetAttributionStorage:
        """The result of what was harvested, through a file that its code writes and lit_attr reads; starts anew."""
        path = self._code._folder / f"{uuid.uuid4()}.pt"  # the last one stays mapped
        self._harvester.finalize(self._topology, 0.0).save(path)
        self.restart()
        return DatasetAttributionStorage.load(path)


def _stage(run: str, folder: Path) -> Path:
    """Lay a run out so that goodfire-ai/spd finds it without asking wandb; returns its checkpoint.

    The run's checkpoint holds the whole target, which is laid out as training writes it.
    """
    files, _, model_config = find_run(run)
    if model_config is None:
        raise SystemExit(f"--run {run}: the target is a model of transformers, which this comparison does not load")
    target = folder / "target" / "checkpoints" / "model_step_0.pt"
    target.parent.mkdir(parents=True)
    options = {"model_type": read_yaml(files.config)["pretrained_model_class"].rpartition(".")[2]}
    for name, content in (("final_config", {}), ("model_config", {**options, **read_yaml(model_config)})):
        (target.parents[1] / f"{name}.yaml").write_text(yaml.safe_dump(content))
    weights = read_checkpoint(files.checkpoint)
    prefix = "target_model."
    torch.save({key.removeprefix(prefix): x for key, x in weights.items() if key.startswith(prefix)}, target)
    config = {**read_yaml(files.config), "pretrained_model_name": str(target), "pretrained_model_path": None}
    (folder / "final_config.yaml").write_text(yaml.safe_dump(config))
    checkpoint = folder / files.checkpoint.name
    checkpoint.symlink_to(files.checkpoint.resolve())
    return checkpoint
