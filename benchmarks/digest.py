"""How long the digest of all rows of a token file takes.

    python benchmarks/digest.py --gb 2 --folder /tmp

A file of random token ids is written, and digested from the page cache by one thread and by all, from the disk, and
from what is remembered beside it. The output is JSON; `cpu_s` are the seconds that all threads took together.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.processes import forget, peak_anonymous_bytes
from lit_attr.data.row_source import RowSource

_ROW = 512
_AT_ONCE = 1 << 16


def write_rows(path: Path, gb: float) -> int:
    """Write random token ids of 32 bits; the number of rows."""
    n_rows = int(gb * 1e9) // (4 * _ROW)
    rows = np.lib.format.open_memmap(path, "w+", np.int32, (n_rows, _ROW))
    generator = np.random.default_rng(0)
    for first in range(0, n_rows, _AT_ONCE):
        end = min(first + _AT_ONCE, n_rows)
        rows[first:end] = generator.integers(0, 50_000, (end - first, _ROW), dtype=np.int32)
    rows.flush()
    return n_rows


def measure(path: Path, n_rows: int) -> dict[str, float]:
    """Digest a file; seconds, seconds of processors, and megabytes of memory that are no mapped file."""
    source = RowSource.of_file(path)
    begin, begin_cpu = time.monotonic(), time.process_time()
    with peak_anonymous_bytes() as peak:
        source.digest(n_rows)
    seconds, cpu = time.monotonic() - begin, time.process_time() - begin_cpu
    return {"s": round(seconds, 4), "cpu_s": round(cpu, 4), "peak_mb": round(peak[0] / 1e6)}


def main() -> None:
    """Print figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=2.0, help="size of the file (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=None, help="where it is written; the system's temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        path = Path(name) / "tokens.npy"
        n_rows = write_rows(path, options.gb)
        memory = path.with_name(f".{path.name}.digest.json")
        all_of_them = os.sched_getaffinity(0)
        figures = {}
        for kind in ("one thread", "all threads", "from the disk"):
            os.sched_setaffinity(0, {min(all_of_them)} if kind == "one thread" else all_of_them)
            memory.unlink(missing_ok=True)
            if kind == "from the disk":
                forget([path])
            figures[kind] = measure(path, n_rows)
        time.sleep(6)  # a file that was just written is not remembered
        RowSource.of_file(path).digest(n_rows)
        figures["remembered"] = measure(path, n_rows)
    print(json.dumps({"gb": options.gb, "processors": len(all_of_them), **figures}, indent=1))


if __name__ == "__main__":
    main()
