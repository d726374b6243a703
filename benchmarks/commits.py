"""What commits cost: the share of a harvest's time that goes into them.

    python benchmarks/commits.py --mb 200 --commits 4

The harvest's sums have the given size in float64. Its interval is the shortest that settings allow, so that the rule of
2 % alone decides when to commit. The harvest is stopped after the given number of commits. The output is JSON.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.workers import TRAINER
from lit_attr.errors import InterruptedHarvestError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.writer import StorageWriter
from tests.toys import write_run, write_tokens

_VOCAB = 20_000
_ROWS = 1_000_000


class Stopwatch(StorageWriter):
    """A writer that notes when commits begin and end."""

    def __init__(self, out_dir: Path) -> None:
        super().__init__(out_dir, commit_minutes=1e-6)
        self.times: list[tuple[float, float]] = []

    def _commit(self, pl_module: LightningModule) -> None:
        begin = time.monotonic()
        super()._commit(pl_module)
        self.times.append((begin, time.monotonic()))


class Stop(Callback):
    """A callback that stops the harvest after a number of commits."""

    def __init__(self, writer: Stopwatch, n_commits: int) -> None:
        self.writer, self.n_commits = writer, n_commits

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.began = time.monotonic()

    def on_predict_batch_start(self, *_: Any) -> None:  # noqa: ANN401
        """Stop if there are enough commits."""
        if len(self.writer.times) >= self.n_commits:
            os.kill(os.getpid(), signal.SIGUSR1)


def measure(mb: int, n_commits: int) -> dict[str, Any]:
    """Harvest until there are enough commits.

    Returns:
        Figures: seconds of the commits, and the share of all but the last in the time before the last.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Nearly all of the sums are those of the embedding, of values and of absolute values.
        matrices = [("mlp.c_fc", mb * 1_000_000 // (2 * 8 * _VOCAB)), ("mlp.down_proj", 8)]
        modules = [{"module_pattern": f"h.*.{path}", "C": count} for path, count in matrices]
        run = write_run(folder / "run", model_options={"n_layer": 1, "vocab_size": _VOCAB}, module_info=modules)
        tokens = write_tokens(folder / "tokens.npy", _ROWS)
        writer = Stopwatch(folder / "out")
        stop = Stop(writer, n_commits)
        harvester = AttributionHarvester(run)
        with suppress(InterruptedHarvestError):
            trainer = Trainer(**TRAINER, callbacks=[stop, writer])
            trainer.predict(harvester, datamodule=TokenDataModule(tokens, batch_size=8))
    commits = writer.times[:n_commits]  # less the one of the end
    costs = [end - begin for begin, end in commits]
    seconds = commits[-1][0] - stop.began
    return {
        "sums_mb": round(harvester.sums.totals.nbytes / 1e6),
        "commits": len(costs),
        "seconds_each": [round(cost, 3) for cost in costs],
        "seconds": round(seconds, 1),
        "share": round(sum(costs[:-1]) / seconds, 4),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--commits", type=int, default=4)
    given = parser.parse_args()
    print(json.dumps(measure(given.mb, given.commits), indent=1))
