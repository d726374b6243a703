"""What standard errors cost: harvests with and without them, in turn, as a user runs them.

    python benchmarks/uncertainty.py [--run RUN --tokens FILE.npy] [--size 131072 --rows 8 32 --repeats 5]

Every batch is a group where a harvest has fewer than 128, which is when they cost the most. Ratios are of medians of
processor time, of one thread, start-up and writing included; and of that time less the time of a harvest of one batch.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.end_to_end import Measured, data, predict
from lit_attr.assets import DEMO


def harvests(run: str, rows: np.ndarray, batch_size: int) -> dict[str, list[Measured]]:
    """One harvest of each kind: of all rows, and of one batch, with standard errors and without.

    Args:
        run: The run.
        rows: Token ids, n_sequences x seq_len.
        batch_size: Sequences in a batch.
    """
    found: dict[str, list[Measured]] = {}
    for uncertainty in ("true", "false"):
        options = ("--model.uncertainty", uncertainty, "--data.batch_size", str(batch_size))
        for taken in (rows, rows[:batch_size]):
            with tempfile.TemporaryDirectory() as folder:
                measured = predict(run, run, taken, 1, Path(folder), *options)
            found.setdefault(uncertainty, []).append(measured)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default=DEMO)
    parser.add_argument("--tokens", type=Path, help="token file of a run on disk")
    parser.add_argument("--size", type=int, default=131072, help="tokens of a harvest")
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 32], help="sequences in a batch")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, rows = data(arguments.run, arguments.tokens, arguments.size, Path(folder))
        for batch_size in arguments.rows:
            repeats = [harvests(run, rows, batch_size) for _ in range(arguments.repeats)]
            line: dict[str, object] = {"run": arguments.run, "rows": batch_size, "batches": -(-len(rows) // batch_size)}
            whole, steps = dict[str, float](), dict[str, float]()
            for kind in ("true", "false"):
                whole[kind] = median(repeat[kind][0].cpu_seconds for repeat in repeats)
                steps[kind] = median(repeat[kind][0].cpu_seconds - repeat[kind][1].cpu_seconds for repeat in repeats)
                line[f"cpu_seconds_{kind}"] = round(whole[kind], 2)
                line[f"peak_mb_{kind}"] = round(median(repeat[kind][0].peak_mb for repeat in repeats))
            line |= {"ratio": round(whole["true"] / whole["false"], 3)}
            line |= {"ratio_without_start": round(steps["true"] / steps["false"], 3)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
