"""How fast a large result answers, with an index and without, and in how much memory.

    python benchmarks/query.py [--folder /tmp] [--gb 10] [--keep FOLDER]

A made-up result of a realistic shape (4 blocks, 50,257 token ids, most of it sums by token) and its index are written,
every byte real, and removed afterwards. Each question is asked in a process of its own, first with nothing of the files
in the page cache, then about other keys. The output is one JSON object: seconds, bytes, and anonymous memory, that of
the imports included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.processes import anonymous_bytes, forget, peak_anonymous_bytes

_N_BLOCKS, _VOCAB, _D_MODEL = 4, 50257, 768
_N_WARM = 20
_QUESTIONS = {
    "sources of a component": ("sources", "2.mlp.up:17"),
    "targets of a component": ("targets", "0.attn.o:17"),
    "targets of a token": ("targets", "embed:1234"),
    "sources of an output token": ("sources", "output:1234"),
    "matrix": ("matrix",),
    "edges": ("edges",),
}
# Without an index, these questions read every number of the file and compute all products.
_NEED_INDEX = ("matrix", "edges")


def ask(path: Path, name: str, *keys: str) -> None:
    """Ask a question again and again, and print what it took; runs in its own process."""
    from lit_attr.query.explorer import Explorer

    before, start = anonymous_bytes(), time.perf_counter()
    explorer = Explorer(path)
    opened = time.perf_counter()
    question = getattr(explorer, name)
    question(*keys)
    first = time.perf_counter()
    others = [key.rpartition(":") for key in keys]
    warm = []
    for number in range(1, _N_WARM + 1):
        begin = time.perf_counter()
        question(*(f"{layer}:{int(index) + number}" for layer, _, index in others))
        warm.append(time.perf_counter() - begin)
    figures = {
        "open": opened - start,
        "first_after_opening": first - opened,
        "warm_median": statistics.median(warm),
        "anonymous_mb": anonymous_bytes() / 1e6,
        "anonymous_mb_of_imports": before / 1e6,
    }
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))


def build(path: Path) -> None:
    """Build the index, and print what it took; runs in its own process."""
    from lit_attr.query.index_build import build_index

    with peak_anonymous_bytes() as peak:
        start = time.perf_counter()
        index = build_index(path)
        seconds = time.perf_counter() - start
    print(
        json.dumps({"seconds": round(seconds, 1), "bytes": index.stat().st_size, "anonymous_mb": round(peak[0] / 1e6)})
    )


def _in_process(*arguments: str) -> Any:  # noqa: ANN401 - a JSON object
    command = [sys.executable, __file__, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _questions(path: Path, names: list[str]) -> dict[str, Any]:
    figures = {}
    for name in names:
        forget(path.parent.iterdir())
        figures[name] = _in_process("--ask", str(path), *_QUESTIONS[name])
    return figures


def _command_line(path: Path) -> dict[str, float]:
    """Seconds of whole processes, and of importing torch alone; they take turns."""

    def seconds(command: list[str]) -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    query = [sys.executable, "-m", "lit_attr.cli.main", "query", str(path), "sources", "output:1234"]
    pairs = [(seconds([sys.executable, "-c", "import torch"]), seconds(query)) for _ in range(7)]
    torch, asked = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {"import_torch": round(torch, 3), "query": round(asked, 3), "ratio": round(asked / torch, 3)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    parser.add_argument("--gb", type=float, default=10.0)
    parser.add_argument("--keep", type=Path, help="a folder whose result is used, or written and kept")
    parser.add_argument("--ask", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        ask(Path(options.ask[0]), *options.ask[1:])
    elif options.build:
        build(options.build)
    elif options.keep:
        print(json.dumps(measure(options.keep, options.gb), indent=2))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            print(json.dumps(measure(Path(temporary), options.gb), indent=2))


def measure(folder: Path, gigabytes: float) -> dict[str, Any]:
    """Write a result unless it is there, and ask it with an index and without."""
    from benchmarks.large_storage import write_large_storage

    path = folder / "dataset_attributions.pt"
    if not path.exists():
        # Most of the file: sums by token, two metrics, four matrices of each block.
        n_components = max(round(gigabytes * 1e9 / (4 * 2 * 4 * _N_BLOCKS * (_VOCAB + 7000))), 8)
        write_large_storage(path, n_components, _N_BLOCKS, _VOCAB, _D_MODEL)
    path.with_suffix(".index").unlink(missing_ok=True)
    without = _questions(path, [name for name in _QUESTIONS if name not in _NEED_INDEX])
    index = _in_process("--build", str(path))
    return {
        "bytes": path.stat().st_size,
        "load_average": os.getloadavg()[0],
        "index": index,
        "with_index": _questions(path, list(_QUESTIONS)),
        "without_index": without,
        "process": _command_line(path),
    }


if __name__ == "__main__":
    main()
