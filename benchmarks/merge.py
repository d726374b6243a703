"""How fast parts are merged, against copying them with cp and sync, and in how much memory.

    python benchmarks/merge.py --parts 4 --mb 1000 --folder /tmp [--rounds 3]

Parts of a made-up harvest are written under the folder, and removed afterwards. Merge and copy take turns; before
each, the parts are dropped from the page cache. Both end when their output is on the disk. The merge runs in a process
of its own, whose anonymous memory is sampled; its time is that of the work, without the start of Python. The output is
one JSON object with medians.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.processes import forget, peak_anonymous_bytes


def make_harvest(folder: Path, n_parts: int, megabytes: int) -> list[Path]:
    """A complete harvest of so many parts of about so many megabytes, one batch each."""
    import numpy as np
    import torch

    from benchmarks.shapes import all_sums, all_targets
    from lit_attr.parts.freeze import current_generation
    from lit_attr.parts.header import Header
    from lit_attr.parts.ledger import Ledger
    from lit_attr.parts.part import write_part
    from lit_attr.parts.plan import Plan
    from lit_attr.parts.read_vectors import publish_read_vectors
    from lit_attr.topology.graph import Topology
    from lit_attr.topology.sums import Sums, row_counts
    from lit_attr.topology.tables import LiveRows

    # The proportions are those of a real decomposition: 8 token ids for each component, most of it sums by token.
    count = max(round((megabytes * 1e6 / 8 / 14.25) ** 0.5), 4)
    topology = Topology(
        n_components={"0.mlp.up": count, "0.mlp.down": count},
        sources={"0.mlp.up": ("embed",), "0.mlp.down": ("0.mlp.up",), "output": ("embed", "0.mlp.down")},
        vocab_size=8 * count,
        d_model=count // 4,
        inputs={name: name for name in ("0.mlp.up", "0.mlp.down", "output")},
        widths={"0.mlp.up": count // 4, "0.mlp.down": count, "output": count // 4},
    )
    plan = Plan({"benchmark": "merge"}, n_parts)
    plan.publish(folder)
    generation = current_generation(folder, plan, n_parts, n_parts)
    Header(topology, all_targets(topology), torch.randn(topology.d_model, topology.vocab_size), 0.0, {}).publish(folder)
    widths = {layer: topology.widths[topology.inputs[layer]] for layer in topology.n_components}
    publish_read_vectors(folder, {layer: torch.randn(width, count) for layer, width in widths.items()})
    layout = all_sums(topology)
    live = {layer: LiveRows(n, np.arange(n)) for layer, n in row_counts(layout).items()}
    sums = Sums.zeros(layout, torch.float64, live=live)
    for _, tensor in sums.named():
        if tensor.is_floating_point():
            tensor.uniform_()
    sums.token_count.fill_(1)
    for n_tokens in (sums.n_tokens, sums.n_abs_tokens):
        n_tokens.fill_(len(sums.token_count))
    for rank in range(n_parts):
        ledger = Ledger(plan.digest, 1, rank, n_parts, [[rank, rank, 1]], int(sums.n_tokens))
        write_part(generation.part_path(rank), sums, ledger)
    return [generation.part_path(rank) for rank in range(n_parts)]


def merge_and_measure(folder: Path) -> None:
    """Merge, and print seconds and peak anonymous memory beyond what was there before; runs in its own process."""
    from lit_attr.parts.merge import merge_harvest

    with peak_anonymous_bytes() as peak:
        start = time.perf_counter()
        merge_harvest(folder)
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": peak[0]}))


def _merge(folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _copy(parts: list[Path], target: Path) -> float:
    target.mkdir()
    start = time.perf_counter()
    subprocess.run(["cp", *map(str, parts), str(target)], check=True)
    subprocess.run(["sync", *map(str, target.iterdir()), str(target)], check=True)
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--mb", type=int, default=1000, help="megabytes of a part")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        merge_and_measure(options.measure)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary) / "harvest"
        parts = make_harvest(folder, options.parts, options.mb)
        merges, copies = [], []
        for _ in range(options.rounds):
            forget(parts)
            copies.append(_copy(parts, Path(temporary) / "copy"))
            forget(parts)
            merges.append(_merge(folder))
        nbytes = sum(path.stat().st_size for path in parts)
    merge, copy = statistics.median(m["seconds"] for m in merges), statistics.median(copies)
    result = {
        "parts": options.parts,
        "bytes": nbytes,
        "seconds_merge": round(merge, 2),
        "seconds_cp": round(copy, 2),
        "speed_ratio_to_cp": round(copy / merge, 3),
        "peak_anonymous_mb": round(max(m["peak"] for m in merges) / 1e6),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
