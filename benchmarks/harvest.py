"""How fast the engines are, against the plain loop and against the forwards that a harvest needs anyway.

    python benchmarks/harvest.py --shape ss-2l --batch 4 --density 0.01 [--decomposed mlp] [--json]

In one process, in turns: two plain forwards of the target; the plain loop, as goodfire-ai/spd runs it (one backward
pass for each target component and metric, and one for each output dimension), on a sample of targets of each layer,
extrapolated; the engines that `auto` chooses: closed forms, and forward mode where matrices on the paths are not
decomposed (`--decomposed mlp` or `attention`). Loop and engines take both metrics, and `attr` alone; both include the
component forward that they start from, and the engines the normalisers. Times are medians of the rounds; FLOPs are
those that the closed forms need for both metrics, counted with the non-zero causal importances.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.plain_loop import PlainLoop
from benchmarks.shapes import DECOMPOSED, SHAPES, all_sums, model_and_tokens, random_ci
from lit_attr.attribution.batch import add_batch_with_ci_
from lit_attr.attribution.closed_form.edge_blocks import EdgeBlock
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine import Engine
from lit_attr.attribution.engine_choice import EngineChoice, build_engine, choose_engines
from lit_attr.decomposition.anatomy import Attention, Mlp
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.harvest.memory import PeakMemory, keep_freed_memory
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import AttrMetric


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matmul_rate(device: torch.device, size: int) -> float:
    """FLOP/s of a large float32 product."""
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(5))


def flops(edge: EdgeBlock, topology: Topology, n_pairs: int, n_positions: int, seq_len: int) -> float:
    """FLOPs that one edge block needs for both metrics."""
    n_targets = topology.d_model if edge.target == OUTPUT else topology.n_components[edge.target]
    if isinstance(edge.through, Mlp):
        hidden = HIDDEN[edge.source]
        return 2 * n_pairs * hidden * n_targets
    if isinstance(edge.through, Attention):
        heads, width = edge.through.n_heads, edge.through.head_width
        if edge.kind == "value":  # the pattern is triangular
            return heads * n_targets * (n_positions * seq_len + 2 * n_pairs)
        if edge.kind == "query":
            return 2 * n_pairs * heads * width * (width + n_targets)
        return 4 * n_pairs * heads * seq_len * n_targets / 2
    return 6 * n_targets * n_pairs


HIDDEN: dict[str, int] = {}


def measure(
    arguments: argparse.Namespace, also: Callable[[Callable[[], None], torch.device], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Run everything in turns.

    Args:
        arguments: Options of the command line.
        also: More that is measured: takes a function that takes one batch, and its device.
    """
    keep_freed_memory()  # as the harvest does
    device = torch.device(arguments.device)
    model, tokens = model_and_tokens(arguments.shape, arguments.batch, arguments.tokens, arguments.decomposed)
    model, tokens = model.to(device), tokens.to(device)
    n_positions, seq_len = tokens.numel(), tokens.shape[1]
    ci = model.causal_importance(tokens) if arguments.density is None else random_ci(model, tokens, arguments.density)
    topology = trace_topology(model)
    HIDDEN.update({layer: model.components(layer).U.shape[1] for layer in model.paths})
    layout = all_sums(topology)
    sums = Sums.zeros(layout, torch.float32, device)
    choice = choose_engines("auto", model, topology)
    edges = choice.closed_form

    def engine(of: EngineChoice) -> Engine:
        return build_engine(of, model, layout, arguments.targets_per_pass, arguments.workspace_mb << 20)

    def forwards() -> None:
        with torch.no_grad():
            model.target_model(tokens)
            model.target_model(tokens)

    chosen = engine(choice)

    def auto() -> None:
        add_batch_with_ci_(sums, model, topology, chosen, tokens, ci)

    def attr_alone() -> None:
        add_batch_with_ci_(sums.signed(), model, topology, chosen, tokens, ci)

    names = ("forwards", "auto", "attr_alone", "component_forward", "autograd", "autograd_attr")
    times: dict[str, list[float]] = {name: [] for name in names}
    forwards(), auto(), attr_alone()
    for _ in range(arguments.rounds):
        times["forwards"].append(seconds(forwards, device))
        times["auto"].append(seconds(auto, device))
        times["attr_alone"].append(seconds(attr_alone, device))
        times["component_forward"].append(seconds(lambda: model.component_forward(tokens), device))
        if arguments.sample:
            loop = plain_loop_seconds(model, topology, tokens, ci, arguments.sample)
            times["autograd"].append(sum(loop.values()))
            times["autograd_attr"].append(loop["attr"])
    median = {name: statistics.median(values) for name, values in times.items() if values}

    capture = model.component_forward(tokens, graph=False)
    kinds = {
        kind: EngineChoice([edge for edge in edges if edge.kind == kind], {}, {})
        for kind in dict.fromkeys(e.kind for e in edges)
    }
    if choice.forward_mode:
        kinds["forward_mode"] = EngineChoice([], choice.forward_mode, {})
    by_edge = {
        kind: statistics.median(
            seconds(lambda of=of: engine(of).add_(sums, capture, ci), device) for _ in range(arguments.rounds)
        )
        for kind, of in kinds.items()
    }
    n_pairs = {EMBED: n_positions, **{layer: int(values.count_nonzero()) for layer, values in ci.items()}}
    total = sum(flops(edge, topology, n_pairs[edge.source], n_positions, seq_len) for edge in edges)
    with PeakMemory() as memory:
        auto()
    rate = matmul_rate(device, 2048 if device.type == "cpu" else 8192)
    in_engine = median["auto"] - median["component_forward"]
    result = {
        "shape": arguments.shape,
        "decomposed": arguments.decomposed,
        "engines": choice.describe(),
        "batch": arguments.batch,
        "density": sum(n_pairs[s] for s in ci) / sum(values.numel() for values in ci.values()),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "tokens_per_second": n_positions / (median["auto"] + median["forwards"] / 2),
        "ratio_to_two_forwards": median["auto"] / median["forwards"],
        "attr_alone_ratio_to_two_forwards": median["attr_alone"] / median["forwards"],
        "matmul_rate_gflops": rate / 1e9,
        "peak_mb": memory.peak / 2**20,
        "seconds_auto": median["auto"],
        "seconds_attr_alone": median["attr_alone"],
        "seconds_component_forward": median["component_forward"],
        "seconds_two_forwards": median["forwards"],
        "seconds_by_edge": by_edge,
    }
    if not choice.forward_mode:
        result["gflop"] = total / 1e9
        result["fraction_of_matmul_rate"] = total / rate / in_engine
    if also is not None:
        result |= also(auto, device)
    if "autograd" in median:
        result["seconds_autograd_extrapolated"] = median["autograd"] + median["component_forward"]
        result["seconds_autograd_attr_extrapolated"] = median["autograd_attr"] + median["component_forward"]
        result["autograd_sample_per_layer"] = arguments.sample
        result["ratio_to_autograd"] = result["seconds_autograd_extrapolated"] / median["auto"]
        result["attr_alone_ratio_to_autograd"] = result["seconds_autograd_attr_extrapolated"] / median["attr_alone"]
    return result


def plain_loop_seconds(
    model: DecomposedModel, topology: Topology, tokens: Tensor, ci: dict[str, Tensor], sample: int
) -> dict[AttrMetric, float]:
    """Seconds of the plain loop by metric, from a sample of targets of each layer, without the component forward."""
    loop = PlainLoop(model.component_forward(tokens), topology, ci, most_targets=sample)
    total: dict[AttrMetric, float] = dict.fromkeys(loop.tables, 0.0)
    for metric, tables in loop.tables.items():
        for target in tables:
            n = loop.n_targets(target)
            none, some = (seconds(partial(loop.take_passes, metric, target, k), tokens.device) for k in (0, n))
            # What does not depend on the number of targets is left out.
            n_all = topology.d_model if target == OUTPUT else topology.n_components[target]
            total[metric] += (some - none) * n_all / n
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="ss-2l", help=f"one of {', '.join(SHAPES)}, or a run")
    parser.add_argument("--decomposed", default="all", choices=DECOMPOSED, help="matrices of a shape")
    parser.add_argument("--batch", type=int, default=4, help="sequences")
    parser.add_argument(
        "--density", type=float, help="share of non-zero causal importances; without it the model's own"
    )
    parser.add_argument("--tokens", help="token file; without it random tokens")
    parser.add_argument("--rounds", type=int, default=5, help="times everything is run")
    parser.add_argument("--sample", type=int, default=4, help="targets of each layer for the plain loop; 0 skips it")
    parser.add_argument("--workspace_mb", type=int, default=1024, help="of the closed form")
    parser.add_argument("--targets_per_pass", type=int, default=16, help="sources at once in forward mode")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    result = measure(parser.parse_args())
    if parser.parse_args().json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        for key, one in value.items() if isinstance(value, dict) else [("", value)]:
            print(f"{name + ' ' + key:40} {one:.4g}" if isinstance(one, float) else f"{name:40} {one}")


if __name__ == "__main__":
    main()
