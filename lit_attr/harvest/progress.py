"""Progress of a harvest on a terminal."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from lit_attr.harvest.tokens import TokenBatch


class HarvestProgress(TQDMProgressBar):
    """A bar with batches done of all, tokens per second over all processes, and the time that is left."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_predict_start(trainer, pl_module)
        self._started = time.monotonic()
        self._n_tokens = 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's own signature
        batch: TokenBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show the rate so far, taking the other processes to be as fast as this one."""
        self._n_tokens += batch.tokens.numel() * trainer.world_size
        rate = self._n_tokens / (time.monotonic() - self._started)
        self.predict_progress_bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
