"""Tokens per second of `lit-attr predict` as a user runs it: whole processes, start-up and writing included.

    python benchmarks/end_to_end.py --run demo ss-2l RUN --tokens TOKENS.npy [--sizes 2000 16000 128000 1000000]

Each run is harvested with the configuration that ships for it (configs/demo.yaml, else configs/spd_run.yaml), over the
first tokens of its data, into an empty folder: the demo's own stories, random tokens for the shape `ss-2l` (random
weights, CI at 1 %), and the token file for anything else. The first size is about one batch: nearly all of its time is
start-up. With other work on the machine only the processor time of one thread means anything: threads that wait for
each other spin.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.shapes import SHAPES, write_run
from lit_attr.assets import ASSETS, DEMO, TOKENS

ROOT = Path(__file__).parents[1]
_DENSITY = 0.01


@dataclass(frozen=True)
class Measured:
    """What one process took.

    Attributes:
        run: The run.
        tokens: Number of tokens.
        wall_seconds: Time from start to exit.
        cpu_seconds: Processor time, of the user and the system.
        peak_mb: The most memory that was resident at once, in 10^6 bytes.
    """

    run: str
    tokens: int
    wall_seconds: float
    cpu_seconds: float
    peak_mb: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens in a second of wall time."""
        return self.tokens / self.wall_seconds

    @property
    def tokens_per_cpu_second(self) -> float:
        """Tokens in a second of processor time."""
        return self.tokens / self.cpu_seconds


def predict(name: str, run: str, rows: np.ndarray, threads: int, folder: Path, *options: str) -> Measured:
    """Harvest rows of tokens in a process.

    Args:
        name: Name of the run in what is printed.
        run: The run.
        rows: Token ids, n_sequences x seq_len.
        threads: Number of its threads.
        folder: Empty folder, for tokens and results.
        options: More words of the command line.

    Raises:
        SystemExit: If the process fails.
    """
    np.save(folder / "tokens.npy", rows)
    config = ROOT / "configs" / ("demo.yaml" if run == DEMO else "spd_run.yaml")
    command = [sys.executable, "-m", "lit_attr", "predict", "--config", str(config), "--model.run", run]
    command += ["--data.tokens", str(folder / "tokens.npy"), "--data.n_batches", "whole_dataset"]
    command += ["--writer.out_dir", str(folder / "out"), *options]
    environment, start = {**os.environ, "OMP_NUM_THREADS": str(threads)}, time.perf_counter()
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        wall, process.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read()}")
    return Measured(name, rows.size, wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


def data(run: str, tokens: Path | None, most: int, folder: Path) -> tuple[str, np.ndarray]:
    """What `lit-attr predict` takes for a run, and its token ids, at most about so many.

    Raises:
        SystemExit: If the run needs a token file and there is none.
    """
    if run in SHAPES:
        shape = SHAPES[run]
        write_run(folder / run, shape, _DENSITY)
        size = (-(-most // shape.seq_len), shape.seq_len)
        return str(folder / run), np.random.default_rng(0).integers(0, shape.vocab, size, dtype=np.uint16)
    if run != DEMO and tokens is None:
        raise SystemExit(f"--run {run} needs --tokens, a token file")
    rows = np.load(ASSETS / TOKENS if run == DEMO or tokens is None else tokens, mmap_mode="r")
    return run, rows[: -(-most // rows.shape[1])]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", default=[DEMO], help=f"runs on disk, {DEMO}, or {', '.join(SHAPES)}")
    parser.add_argument("--tokens", type=Path, help="token file of the runs on disk")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[2048, 16384, 131072, 1048576], help="numbers of tokens"
    )
    parser.add_argument(
        "--longest", type=float, default=240, help="processor seconds; sizes that would take longer are left out"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object for each process")
    arguments = parser.parse_args()
    for name in arguments.run:
        with tempfile.TemporaryDirectory() as folder:
            run, rows = data(name, arguments.tokens, max(arguments.sizes), Path(folder))
            rate = float("inf")
            for size in arguments.sizes:
                taken = rows[: -(-size // rows.shape[1])]
                if taken.size < size or size / rate > arguments.longest:
                    continue
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    measured = predict(name, run, taken, arguments.threads, Path(place))
                rate = measured.tokens_per_cpu_second
                rates = {"tokens_per_second": measured.tokens_per_second, "tokens_per_cpu_second": rate}
                line = {**asdict(measured), **rates}
                if arguments.json:
                    print(json.dumps(line), flush=True)
                else:
                    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()))


if __name__ == "__main__":
    main()
