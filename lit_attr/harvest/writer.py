"""Writing the result of a harvest."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lit_attr._version import __version__
from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.processes import on_first_process
from lit_attr.storage.files import make_folder
from lit_attr.storage.repo import MERGED_FILE, create_subrun, run_folder
from lit_attr.storage.storage import DatasetAttributionStorage


class StorageWriter(Callback):
    """Writes the merged storage at the end of the predict epoch.

    The file is `<out_dir>/dataset_attributions/<run_id>/da-YYYYMMDD_HHMMSS/dataset_attributions.pt`; it appears whole
    or not at all.

    Args:
        out_dir: Root of the results; without it `$LIT_ATTR_OUT_DIR`, else `$SPD_OUT_DIR`, else `./out`.

    Attributes:
        path: The written file; None before.
    """

    def __init__(self, out_dir: str | Path | None = None) -> None:
        super().__init__()
        self.out_dir = out_dir
        self.path: Path | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out before the first batch whether the result can be written."""
        folder = run_folder(_harvester(pl_module).loaded_run.run_id, self.out_dir)
        on_first_process(trainer, partial(make_folder, folder))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reduce the sums over all processes, and write them on the first."""
        harvester = _harvester(pl_module)
        try:
            harvester.sums.sync()
        except RuntimeError as error:  # what torch raises where another process is gone
            raise StorageError(
                f"cannot add the sums of all processes, one has ended; see its message: {error}"
            ) from error
        self.path = on_first_process(trainer, partial(self._write, trainer, harvester))

    def _write(self, trainer: Trainer, harvester: AttributionHarvester) -> Path:
        storage = DatasetAttributionStorage.from_sums(
            harvester.sums.totals,
            harvester.model.unembedding,
            harvester.hparams["ci_threshold"],
            self._provenance(trainer, harvester),
        )
        path = create_subrun(harvester.loaded_run.run_id, self.out_dir) / MERGED_FILE
        storage.save(path)
        rank_zero_info(f"lit_attr: wrote {path}")
        return path

    def _provenance(self, trainer: Trainer, harvester: AttributionHarvester) -> dict[str, Any]:
        run = harvester.loaded_run
        data = getattr(trainer, "datamodule", None)
        configuration: dict[str, Any] = {
            "model": _settings(harvester.hparams),
            "writer": {"out_dir": self.out_dir},
            "trainer": {
                "accelerator": type(trainer.accelerator).__name__,
                "strategy": type(trainer.strategy).__name__,
                "precision": trainer.precision,
                "num_nodes": trainer.num_nodes,
                "devices": trainer.num_devices,
            },
        }
        provenance: dict[str, Any] = {
            "lit_attr_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "run_id": run.run_id,
            "run_reference": run.reference,
            "weights_digest": run.weights_digest,
            "engine": harvester.hparams["engine"],
            "engine_blocks": harvester.engine.blocks,
            "precision": trainer.precision,
            "n_tokens": int(harvester.sums.totals.n_tokens),
            "n_alive": {layer: int(mask.sum()) for layer, mask in harvester.alive.items()},
            "not_targets": {layer: (~mask).nonzero()[:, 0].tolist() for layer, mask in harvester.alive.items()},
            "configuration": configuration,
        }
        if isinstance(data, TokenDataModule):
            dataset = asdict(data.spec) if data.spec else None  # complete, not only what was changed
            configuration["data"] = {**_settings(data.hparams), "dataset": dataset}
            provenance["data_fingerprint"] = data.fingerprint()
            provenance["data_shape"] = [data.n_rows, data.seq_len]
            provenance["n_batches"] = data.n_batches
        # Paths and the like become text: the file must load without unpickling objects.
        return json.loads(json.dumps(provenance, default=str))


def _settings(hparams: Any) -> dict[str, Any]:  # noqa: ANN401 - Lightning's attribute dictionary
    """Hyperparameters without the entries that Lightning's command line adds for itself."""
    return {key: value for key, value in hparams.items() if not key.startswith("_")}


def _harvester(pl_module: LightningModule) -> AttributionHarvester:
    if not isinstance(pl_module, AttributionHarvester):
        raise ConfigurationError(
            f"StorageWriter writes an AttributionHarvester's sums, found {type(pl_module).__name__}"
        )
    return pl_module
