"""Progress of a harvest: a bar on a terminal, a line from time to time elsewhere, and figures for the logger."""

import sys
import threading
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from lit_attr.data.token_file import TokenBatch
from lit_attr.harvest.writer import StorageWriter

# Seconds between two lines, and between two entries in the logger.
_HEARTBEAT = 30.0


class HarvestProgress(TQDMProgressBar):
    """Batches done of all, tokens per second over all processes, and the time that is left.

    On a terminal it is a bar. Without one, a line every 30 seconds and at the end, as logs of cluster jobs want it; a
    thread writes it, so that a batch that takes minutes does not look like a hang. The trainer's logger, if there is
    one, gets `tokens_per_second`, `batches` and `coverage` (the share of batches done) after a batch, as often.

    Args:
        refresh_rate: Batches between two updates of the bar.
        process_position: Number of lines that the bar is moved down.
        leave: Whether the bar stays at the end.
    """

    def __init__(self, refresh_rate: int = 1, process_position: int = 0, *, leave: bool = False) -> None:
        super().__init__(refresh_rate, process_position, leave)
        self._started = 0.0
        self._reported = 0.0
        self._n_tokens = 0
        self._n_steps = 0
        self._ended = threading.Event()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        if not sys.stdout.isatty():
            self.disable()
        super().on_predict_start(trainer, pl_module)
        self._started = self._reported = time.monotonic()
        self._n_tokens = 0
        self._n_steps = 0
        self._ended = threading.Event()
        if self.is_disabled and trainer.is_global_zero:
            threading.Thread(target=self._beat, args=(trainer,), daemon=True).start()

    def _beat(self, trainer: Trainer) -> None:
        while not self._ended.wait(_HEARTBEAT):
            self._say(trainer)

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
        self._n_steps += 1
        self.predict_progress_bar.set_postfix_str(f"{self._rate():,.0f} tokens/s", refresh=False)
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if time.monotonic() - self._reported >= _HEARTBEAT:
            self._log(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how it ended."""
        super().on_predict_end(trainer, pl_module)
        self._ended.set()
        if self.is_disabled and trainer.is_global_zero:
            self._say(trainer)
        self._log(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Fall silent."""
        self._ended.set()

    def _rate(self) -> float:
        return self._n_tokens / (time.monotonic() - self._started)

    def _n_all(self, trainer: Trainer) -> int:
        """Steps of the harvest; once it has ended, those that it took: it may have been settled before."""
        return self._n_steps if self._ended.is_set() else int(sum(trainer.num_predict_batches))

    def _say(self, trainer: Trainer) -> None:
        n_all = self._n_all(trainer)
        ours = "" if trainer.world_size == 1 else f" of each of {trainer.world_size} processes"
        left = "unknown time"
        if self._n_steps:
            seconds = (time.monotonic() - self._started) / self._n_steps * (n_all - self._n_steps)
            left = str(timedelta(seconds=round(seconds)))
        silence = "".join(f", {each.silence}" for each in _writers(trainer) if each.silence is not None)
        rate = f"{self._rate():,.0f} tokens/s"
        print(f"lit_attr: {self._n_steps}/{n_all} batches{ours}, {rate}, {left} left{silence}", flush=True)

    def _log(self, trainer: Trainer) -> None:
        self._reported = time.monotonic()
        if trainer.logger is not None:
            trainer.logger.log_metrics(
                {
                    "tokens_per_second": self._rate(),
                    "batches": self._n_steps * trainer.world_size,
                    "coverage": self._n_steps / self._n_all(trainer),
                },
                step=self._n_steps,
            )


def _writers(trainer: Trainer) -> list[StorageWriter]:
    return [callback for callback in getattr(trainer, "callbacks", ()) if isinstance(callback, StorageWriter)]
