"""lit_attr against goodfire-ai/spd's own attribution harvester: seconds and numbers, on a trained run.

    python benchmarks/against_spd.py --spd CHECKOUT --run RUN --tokens TOKENS.npy [--batch 8 32] [--threads 1 2]

CHECKOUT is a clone of goodfire-ai/spd at a commit whose harvester has `attr_abs` (branch feature/model-editing, of
February 2026). Its code needs Python 3.12 or newer and packages that lit_attr does not; both must be importable in one
environment, and what is missing is said.

Both harvest the same batches of the same run in one process, in turns, all components alive, from token ids to sums:
causal importances, component forward, both metrics, normalisers. goodfire-ai/spd always runs its forwards under
bfloat16 autocast; it is timed so, and with autocast off. lit_attr runs in float32, as by default. The process keeps
freed memory, as a harvest of lit_attr does; that helps both. With one thread processor time is taken, which other work
on the machine hardly changes, and with several wall time. Errors are relative, in the Frobenius norm of each block,
against lit_attr in float64.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.goodfire_spd import GoodfireRun, GoodfireSpd
from benchmarks.shapes import all_sums, all_targets
from lit_attr.attribution.batch import add_batch_, read_vectors
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import build_engine, choose_engines
from lit_attr.decomposition.load import load_run
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.harvest.memory import keep_freed_memory
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage


class Ours:
    """lit_attr on a run, as a harvest runs it.

    Args:
        run: A run.
        dtype: Precision of the model and the engine.
    """

    def __init__(self, run: str, dtype: torch.dtype) -> None:
        self._model = load_run(run).model.to(dtype)
        self._topology = trace_topology(self._model)
        layout = all_sums(self._topology)
        choice = choose_engines("auto", self._model, self._topology)
        self._engine = build_engine(choice, self._model, layout, 16, 1 << 30)
        self._sums = AttributionSums()
        self._sums.allocate(layout, dtype, "cpu")

    def add(self, tokens: Tensor) -> None:
        """Harvest one batch."""
        self._sums.update(lambda sums: add_batch_(sums, self._model, self._topology, self._engine, tokens))

    def result(self) -> DatasetAttributionStorage:
        """What was harvested."""
        self._sums.flush()
        read = read_vectors(self._model, self._topology, all_targets(self._topology))
        return DatasetAttributionStorage.from_sums(self._sums.totals, read, self._model.unembedding, 0.0)


def timed(theirs: GoodfireRun, ours: Ours, tokens: Tensor, threads: int, rounds: int) -> dict[str, Any]:
    """Seconds of one batch, medians of rounds, and their ratios."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter

    def seconds(run: Callable[[], None]) -> float:
        start = clock()
        run()
        return clock() - start

    runs: dict[str, Callable[[], None]] = {
        "lit_attr": lambda: ours.add(tokens),
        "spd": lambda: theirs.add(tokens, autocast=True),
        "spd_float32": lambda: theirs.add(tokens, autocast=False),
    }
    ours.add(tokens)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            # A batch of lit_attr is short: a round takes the median of several.
            times = 5 if name == "lit_attr" else 1
            taken[name].append(statistics.median(seconds(run) for _ in range(times)))
    median = {name: statistics.median(times) for name, times in taken.items()}
    result: dict[str, Any] = {"batch": len(tokens), "threads": threads}
    for name, value in median.items():
        result[f"seconds_{name}"] = value
        result[f"tokens_per_second_{name}"] = tokens.numel() / value
    for name in ("spd", "spd_float32"):
        result[f"ratio_to_{name}"] = median[name] / median["lit_attr"]
    return result


def errors(result: DatasetAttributionStorage, exact: DatasetAttributionStorage) -> dict[str, float]:
    """Name of each block of sums to its relative error in the Frobenius norm."""
    expected = dict(exact.named_sums())
    return {
        name: float((x.double() - expected[name].double()).norm() / expected[name].double().norm())
        for name, x in result.named_sums()
    }


def compared(theirs: GoodfireRun, run: str, batches: list[Tensor]) -> dict[str, Any]:
    """Relative errors of both codes over some batches: median and worst of the blocks of each kind, and all of them."""
    results = {}
    for name, autocast in (("spd", True), ("spd_float32", False)):
        for batch in batches:
            theirs.add(batch, autocast=autocast)
        results[name] = theirs.take()
    for name, dtype in (("lit_attr", torch.float32), ("exact", torch.float64)):
        ours = Ours(run, dtype)
        for batch in batches:
            ours.add(batch)
        results[name] = ours.result()
    exact = results.pop("exact")
    by_code = {name: errors(result, exact) for name, result in results.items()}
    summary: dict[str, Any] = {}
    for code, by_block in by_code.items():
        for kind in ("attr", "attr_abs", "normalisers"):
            of_kind = {block: error for block, error in by_block.items() if _kind(block) == kind}
            worst = max(of_kind, key=lambda block: by_block[block])
            median = statistics.median(of_kind.values())
            summary[f"{code} {kind}"] = {"median": median, "worst": of_kind[worst], "worst_block": worst}
    return {"tokens": sum(batch.numel() for batch in batches), "errors": summary, "blocks": by_code}


def _kind(block: str) -> str:
    metric = re.match(r"(?:regular|embed|unembed|embed_unembed)_(attr(?:_abs)?)(?:\[|$)", block)
    return metric[1] if metric else "normalisers"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spd", type=Path, required=True, help="checkout of goodfire-ai/spd")
    parser.add_argument("--run", required=True, help="a decomposition run on disk")
    parser.add_argument("--tokens", type=Path, required=True, help="token file")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32], help="sequences in a batch")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3, help="times everything is run; 0 compares the numbers alone")
    parser.add_argument("--compare", type=int, default=1, help="batches, of the last size, whose numbers are compared")
    parser.add_argument("--json", action="store_true", help="one JSON object, with the errors of each block")
    arguments = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        theirs = GoodfireSpd(arguments.spd, Path(folder)).load(arguments.run)
        ours = Ours(arguments.run, torch.float32)
        rows = torch.from_numpy(np.load(arguments.tokens, mmap_mode="r").astype(np.int64))
        times = [
            timed(theirs, ours, rows[:batch], threads, arguments.rounds)
            for threads in arguments.threads
            for batch in arguments.batch
            if arguments.rounds
        ]
        theirs.restart()
        numbers = compared(theirs, arguments.run, list(rows.split(arguments.batch[-1])[: arguments.compare]))
    if arguments.json:
        print(json.dumps({"times": times, "numbers": numbers}))
        return
    for measured in times:
        print("  ".join(f"{name} {value:.4g}" for name, value in measured.items()))
    print(f"relative errors over {numbers['tokens']} tokens:")
    for name, error in numbers["errors"].items():
        print(f"{name:24} median {error['median']:.2g}  worst {error['worst']:.2g} ({error['worst_block']})")


if __name__ == "__main__":
    main()
