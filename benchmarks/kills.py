"""Harvests under random SIGKILLs, whose results must show nothing of them.

    python benchmarks/kills.py --kills 1000

Tiny harvests commit after every batch, by 1 to 4 independent workers at a time. Workers are killed at random times.
Their successors are of another number more often than not, and some begin while predecessors are still alive. With
`--target_shards 2` there are so many workers of each shard, whose results are united. Every batch holds one token id of
its own, so that a lost or doubled batch shows in the token counts. The output is JSON; what was counted so far is said
after every harvest.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.workers import Work, start
from lit_attr.errors import StorageError
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.status import status
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.toys import BLOCK, write_run

_N_BATCHES = 40
_ROWS = 2
_SUBRUN = "da-kills"
# Longer than most workers take, so that some end by themselves.
_LONGEST = 1.0
_TOLERANCE = 1e-6
# Words of the message with which a worker ends that others have replaced.
_REPLACED = ("has taken over", "was changed by another process")


class Kills:
    """Harvests under fire.

    Args:
        folder: Folder for everything.
        seed: Seed of all that is random.
        without_links: Whether the file system has no hard links.
        n_shards: Among how many shards targets are dealt out.
    """

    def __init__(self, folder: Path, seed: int, *, without_links: bool, n_shards: int = 1) -> None:
        self.folder = folder
        self.n_shards = n_shards
        self.action = "no links" if without_links else None
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter(kills=0, lost=0, doubled=0, unequal=0, restarts=0, replaced=0, harvests=0)
        self.mistakes: list[str] = []
        self.run = write_run(folder / "run", model_options={"vocab_size": _N_BATCHES, "n_layer": 1})
        self.tokens = folder / "tokens.npy"
        rows = np.arange(_N_BATCHES, dtype=np.uint16).repeat(_ROWS)
        np.save(self.tokens, rows[:, None].repeat(BLOCK, axis=1))
        self.expected = self._undisturbed()

    def harvest(self, enough: int) -> None:
        """One harvest, with kills until there are enough of them, to its end."""
        name = f"harvest_{self.counts['harvests']}"
        folder = self.folder / name / "dataset_attributions" / "run" / _SUBRUN
        alive: list[ForkServerProcess] = []
        while not _complete(folder):
            if self.random.random() < 0.7:  # otherwise those of before go on meanwhile
                self._wait(alive)
            started: dict[ForkServerProcess, float] = {}
            for shard in range(self.n_shards):
                n_workers = self.random.randint(1, 4)
                for rank in range(n_workers):
                    started[self._start(name, rank, n_workers, shard, self.n_shards)] = self._deadline(enough)
            self.counts["restarts"] += 1
            for worker, deadline in sorted(started.items(), key=lambda item: item[1]):
                worker.join(deadline - time.monotonic() if deadline < float("inf") else None)
                if worker.exitcode is None and self.random.random() < 0.8:
                    worker.kill()
                    worker.join()
                    self.counts["kills"] += worker.exitcode == -9
                alive.append(worker)
        self._wait(alive)
        self._check(DatasetAttributionStorage.load(merge_harvest(folder)))
        self.counts["harvests"] += 1
        self._read_log(name)

    def _deadline(self, enough: int) -> float:
        if self.counts["kills"] >= enough:
            return float("inf")
        return time.monotonic() + self.random.uniform(0, _LONGEST)

    def _start(self, name: str, rank: int, n_workers: int, shard: int = 0, n_shards: int = 1) -> ForkServerProcess:
        writer = {"out_dir": self.folder / name, "subrun_id": _SUBRUN, "commit_batches": 1}
        data = {"rank": rank, "world_size": n_workers, "batch_size": _ROWS}
        data |= {"target_shard": shard, "target_shards": n_shards}
        return start(Work(self.run, self.tokens, self.folder / f"{name}.log", data, writer, action=self.action))

    def _undisturbed(self) -> DatasetAttributionStorage:
        worker = self._start("undisturbed", 0, 1)
        worker.join()
        folder = self.folder / "undisturbed" / "dataset_attributions" / "run" / _SUBRUN
        return DatasetAttributionStorage.load(folder / "dataset_attributions.pt")

    def _wait(self, workers: list[ForkServerProcess]) -> None:
        while workers:
            workers.pop().join()

    def _check(self, result: DatasetAttributionStorage) -> None:
        """Count the batches that are lost or doubled: each token id belongs to one batch."""
        per_batch = _ROWS * BLOCK
        self.counts["lost"] += int((result.embed_token_count < per_batch).sum())
        self.counts["doubled"] += int((result.embed_token_count > per_batch).sum())
        self.counts["lost"] += result.n_tokens_processed < _N_BATCHES * per_batch
        self.counts["doubled"] += result.n_tokens_processed > _N_BATCHES * per_batch
        expected = dict(self.expected.named_sums())
        self.counts["unequal"] += any(
            float((tensor - expected[name]).abs().max()) > _TOLERANCE * float(expected[name].abs().max())
            for name, tensor in result.named_sums()
        )

    def _read_log(self, name: str) -> None:
        """Count the workers that were replaced, and keep all other mistakes."""
        lines = (self.folder / f"{name}.log").read_text().splitlines()
        for line in lines:
            if line.startswith("lit-attr: error:") and any(words in line for words in _REPLACED):
                self.counts["replaced"] += 1
            elif "error:" in line.lower() or line.startswith("Traceback"):
                self.mistakes.append(line)


def _complete(folder: Path) -> bool:
    try:
        return status(folder).is_done
    except StorageError:  # not begun, or changing right now
        return False


def measure(kills: int, seed: int, *, without_links: bool, n_shards: int) -> dict[str, Any]:
    """Kill workers until there are enough kills, on a file system with or without hard links.

    Returns:
        The counts, in plain types.
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        under_fire = Kills(Path(folder), seed, without_links=without_links, n_shards=n_shards)
        while under_fire.counts["kills"] < kills:
            under_fire.harvest(kills)
            print(dict(under_fire.counts), under_fire.mistakes, file=sys.stderr)
    return {**under_fire.counts, "mistakes": under_fire.mistakes, "seconds": round(time.monotonic() - begin, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without_links", action="store_true", help="as on a file system without hard links")
    parser.add_argument("--target_shards", type=int, default=1, help="among which targets are dealt out")
    given = parser.parse_args()
    counts = measure(given.kills, given.seed, without_links=given.without_links, n_shards=given.target_shards)
    print(json.dumps(counts, indent=1))
