"""How the closed forms' time grows with tokens, components and density; writes docs/performance.json and .svg.

    python benchmarks/sweep.py [--rounds 5]

Shape `ss-2l` with one thing varied at a time. Each point is the median over the rounds of the engine alone, without the
component forward. The points of all three sweeps are measured in turns, so that a slow minute of the machine is not
mistaken for a trend.
"""

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.harvest import seconds
from benchmarks.shapes import SHAPES, all_sums, build, random_ci
from lit_attr.attribution.closed_form.edge_blocks import closed_edges
from lit_attr.attribution.closed_form.engine import ClosedFormEngine
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.harvest.memory import keep_freed_memory
from lit_attr.topology.sums import Sums

SWEEPS: dict[str, list[float]] = {
    "tokens": [128, 256, 512, 1024, 2048, 4096, 8192],
    "components": [81, 163, 325, 650, 1300, 2600],
    "density": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
}
USUAL = {"tokens": 512, "components": 650, "density": 0.01}


def point(tokens: float, components: float, density: float, rounds: int) -> float:
    """Seconds of the engine for one batch."""
    base = SHAPES["ss-2l"]
    model = build(replace(base, components=dict.fromkeys(base.components, int(components))))
    rows = torch.randint(0, base.vocab, (int(tokens) // base.seq_len, base.seq_len))
    ci = random_ci(model, rows, density)
    topology = trace_topology(model)
    layout = all_sums(topology)
    engine = ClosedFormEngine(model, layout, closed_edges(topology, model.anatomy()), 1 << 30)
    sums = Sums.zeros(layout, torch.float32)
    capture = model.component_forward(rows, graph=False)
    engine.add_(sums, capture, ci)
    return statistics.median(seconds(lambda: engine.add_(sums, capture, ci), rows.device) for _ in range(rounds))


def plot(result: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw the three sweeps."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
    for ax, (name, points) in zip(axes, result.items(), strict=True):
        x, y = [p[name] for p in points], [p["seconds"] for p in points]
        ax.loglog(x, y, "o-", color="#2166ac", label="measured")
        power = 2 if name == "components" else 1
        middle = x.index(USUAL[name])
        ax.loglog(x, [y[middle] * (v / x[middle]) ** power for v in x], ":", color="0.5", label=f"{name}$^{power}$")
        ax.set_xlabel({"tokens": "tokens in a batch", "components": "components of a matrix"}.get(name, "non-zero CI"))
        ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("seconds")
    figure.savefig(path)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs")
    arguments = parser.parse_args()
    keep_freed_memory()
    points: list[tuple[str, dict[str, Any]]] = [
        (name, {**USUAL, name: value}) for name, values in SWEEPS.items() for value in values
    ]
    taken: list[list[float]] = [[] for _ in points]
    for _ in range(3):
        for where, (_, settings) in zip(taken, points, strict=True):
            where.append(point(**settings, rounds=arguments.rounds))
    result: dict[str, list[dict[str, float]]] = {name: [] for name in SWEEPS}
    for times, (name, settings) in zip(taken, points, strict=True):
        result[name].append({name: settings[name], "seconds": statistics.median(times)})
    arguments.out.mkdir(exist_ok=True)
    (arguments.out / "performance.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, arguments.out / "performance.svg")


if __name__ == "__main__":
    main()
