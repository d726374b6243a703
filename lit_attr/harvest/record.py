"""What a harvest records of itself before its first batch: the provenance of its result, in plain types."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from jaxtyping import Bool
from lightning.pytorch import Trainer
from torch import Tensor

from lit_attr._version import __version__
from lit_attr.assets import DEMO
from lit_attr.files.roots import user_path
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester


def harvest_record(
    trainer: Trainer,
    harvester: AttributionHarvester,
    data: TokenDataModule,
    alive: Mapping[str, Bool[Tensor, " _component"]],
    writer: Mapping[str, Any],
) -> dict[str, Any]:
    """The entries of a result's provenance that are known before the first batch; `Provenance` reads them.

    Args:
        trainer: The trainer of the harvest.
        harvester: The module, after its setup.
        data: The data, open.
        alive: Layer to the components that are targets.
        writer: Settings of the writer.
    """
    run = harvester.load_run()
    dataset = asdict(data.spec) if data.spec else None  # complete, not only what was changed
    record = {
        "lit_attr_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": run.run_id,
        "run_reference": _reference(run.reference),
        "weights_digest": run.weights_digest,
        "checkpoint": run.checkpoint,
        "decomposition": run.decomposition,
        "engine": harvester.engine_name,
        "engine_blocks": harvester.choice.blocks,
        "precision": trainer.precision,
        "n_alive": {layer: int(mask.sum()) for layer, mask in alive.items()},
        "targets": harvester.target_rule.record(data),
        "not_targets": {layer: (~mask).nonzero()[:, 0].tolist() for layer, mask in alive.items()},
        "diagnostics": harvester.diagnose(data).entries(),
        "data_digest": data.digest(data.n_batches),
        "data_shape": [data.n_rows, data.seq_len],
        **data.order_entries(),
        "configuration": {
            "model": {
                **harvester.settings(),
                "decomposition": run.decomposition,
                "path_table": harvester.source.table_entries(),
            },
            "data": {**data.settings(), "dataset": dataset},
            "writer": dict(writer),
            "trainer": {
                "accelerator": type(trainer.accelerator).__name__,
                "strategy": type(trainer.strategy).__name__,
                "precision": trainer.precision,
                "num_nodes": trainer.num_nodes,
                "devices": trainer.num_devices,
            },
        },
    }
    # Paths and the like become text: the file must load without unpickling objects.
    return json.loads(json.dumps(record, default=str))


def _reference(reference: str) -> str:
    """A folder by its absolute path, so that its tokenizer is found from elsewhere; other references as they are."""
    path = user_path(reference)
    return str(path.absolute()) if reference != DEMO and path.exists() else reference
