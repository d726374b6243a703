"""A callback for the configuration of a test's jobs: writes down their batches, and makes them slow on demand."""

import os
import time
from pathlib import Path

from lightning.pytorch import Callback


class Watch(Callback):
    """Appends rank, process, restart and id of each batch to `batches` in a folder, before the batch is harvested.

    While the folder holds a file `slow_RANK`, the batches of that rank take a second each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        rank, _ = trainer.datamodule.worker()
        if batch.batch_id < 0:
            return
        with open(self.folder / "batches", "a") as file:
            file.write(f"{rank} {os.getpid()} {os.environ.get('SLURM_RESTART_COUNT', 0)} {batch.batch_id}\n")
        if (self.folder / f"slow_{rank}").exists():
            time.sleep(1)
