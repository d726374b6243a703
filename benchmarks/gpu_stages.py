"""What `benchmarks/gpu.py` measures, each in a process of its own that ends with one line of JSON.

python benchmarks/gpu_stages.py shape --device cuda --shape pile-4l --batch 8 --density 0.01
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.harvest import measure, seconds
from benchmarks.shapes import SHAPES, all_sums, build, random_ci
from lit_attr.attribution.batch import add_batch_with_ci_
from lit_attr.attribution.closed_form.kernel_choice import checked_kernel, largest_error, random_problem, sums_of_pairs
from lit_attr.attribution.closed_form.workspace import Workspace
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import build_engine, choose_engines
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.sums import Sums

ROOT = Path(__file__).parents[1]
# What a profile calls a launch, a wait of the host for the device, and an operation that cannot but wait.
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
_WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
_READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::_unique2", "aten::masked_select")
# Largest differences that are no error, relative to a block's norm, and of the kernel to the sum of its terms' sizes.
_FLOAT32, _END_TO_END, _KERNEL = 1e-5, 1e-4, 1e-6


def profiled(run: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Launches and waits of one batch, and on CUDA the most memory that was allocated.

    Args:
        run: Takes one batch.
        device: Device of the batch.
    """
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with profile(activities=activities) as record:
        whole = seconds(run, device)
    events = {event.key: event for event in record.key_averages()}

    def count(names: tuple[str, ...]) -> int:
        return sum(events[name].count for name in names if name in events)

    found = {"reads_per_batch": {name.removeprefix("aten::"): count((name,)) for name in _READS}}
    if not on_cuda:
        return found
    waited = sum(events[name].self_cpu_time_total for name in _WAITS if name in events) / 1e6
    return found | {
        "launches_per_batch": count(_LAUNCHES),
        "waits_per_batch": count(_WAITS),
        "seconds_in_waits_profiled": waited,
        "seconds_profiled": whole,
        "peak_allocated_mb": torch.cuda.max_memory_allocated(device) / 2**20,
    }


def shape(options: Namespace) -> dict[str, Any]:
    """Tokens per second, share of the product rate, memory, launches and waits of a shape."""
    fixed = {"decomposed": "all", "tokens": None, "sample": 0, "targets_per_pass": 16}
    return measure(Namespace(**vars(options), **fixed), profiled)


def correctness(options: Namespace) -> dict[str, Any]:
    """The engine in float32 against float64 on the device, from the same forward; and twice, bit by bit."""
    device = torch.device(options.device)
    model = build(SHAPES[options.shape]).to(device)
    seq_len = SHAPES[options.shape].seq_len
    tokens = torch.randint(0, model.vocab_size, (options.batch, seq_len), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(device)
    ci, topology = random_ci(model, tokens, options.density), trace_topology(model)
    layout = all_sums(topology)
    engine = build_engine(choose_engines("auto", model, topology), model, layout, 16, options.workspace_mb << 20)

    def sums_in(dtype: torch.dtype) -> dict[str, Tensor]:
        sums = Sums.zeros(layout, dtype, device)
        add_batch_with_ci_(sums, model, topology, engine, tokens, ci)
        return dict(sums.named())

    first, second, exact = (sums_in(dtype) for dtype in (torch.float32, torch.float32, torch.float64))
    off = largest_differences(first, exact)
    same = all(values.equal(second[name]) for name, values in first.items())
    largest = max(off.values())
    return {
        "largest_difference": largest,
        "by_kind": off,
        "same_bits_twice": same,
        "right": same and largest < _FLOAT32,
    }


def kernel(options: Namespace) -> dict[str, Any]:
    """The Triton kernel for MLPs against products and sums of torch, at the size of an MLP of pile-4l at 1 %."""
    device = torch.device(options.device)
    on_cuda = device.type == "cuda"
    chosen = (
        checked_kernel(device) if on_cuda else import_module("lit_attr.attribution.closed_form.mlp_kernel").signed_sums
    )
    if chosen is None:
        return {"right": False, "why": "the kernel was not chosen: see the log"}
    sizes = ([41] * 3072, 4096, 3072, 3584) if on_cuda else ([5] * 20, 64, 64, 130)
    operands, workspace = random_problem(*sizes, device), Workspace(options.workspace_mb << 20, device)
    times = {"kernel": lambda: chosen(*operands, workspace), "torch": lambda: sums_of_pairs(*operands)}
    taken = {name: min(seconds(run, device) for _ in range(1 + options.rounds)) for name, run in times.items()}
    flop = 2 * len(operands[0]) * sizes[2] * sizes[3]
    error = largest_error(chosen, device)
    return {
        "seconds": taken,
        "tflop_per_second": {f"{name} TFLOP/s": flop / time / 1e12 for name, time in taken.items()},
        "largest_error": error,
        "right": error < _KERNEL,
    }


def harvest(options: Namespace) -> dict[str, Any]:
    """`lit-attr predict` on the demo: on one device and on two, against one process on the CPU."""
    settings = [(1, "gpu"), (2, "gpu")] if options.device == "cuda" else [(2, "cpu")]
    result: dict[str, Any] = {"right": True, "by_kind": {}}
    with tempfile.TemporaryDirectory() as folder:
        expected = _predict(Path(folder) / "expected", "cpu", 1)
        for n_devices, accelerator in settings:
            name = f"{accelerator} x {n_devices}"
            if accelerator == "gpu" and torch.cuda.device_count() < n_devices:
                result[name] = "one device"
                continue
            off = largest_differences(_predict(Path(folder) / name, accelerator, n_devices), expected)
            result["by_kind"][name], result[name] = off, max(off.values())
            result["right"] &= result[name] < _END_TO_END
    return result


def _predict(out_dir: Path, accelerator: str, n_devices: int) -> dict[str, Tensor]:
    options = {
        "--config": "configs/demo.yaml",
        "--data.n_batches": "8",
        "--model.alive_batches": "8",
        "--writer.out_dir": str(out_dir),
        "--trainer.accelerator": accelerator,
        "--trainer.devices": str(n_devices),
        "--trainer.strategy": "ddp" if n_devices > 1 else "auto",
    }
    arguments = [word for option in options.items() for word in option]
    subprocess.run([sys.executable, "-m", "lit_attr.cli.main", "predict", *arguments], cwd=ROOT, check=True)
    (path,) = out_dir.rglob("dataset_attributions.pt")
    return dict(DatasetAttributionStorage.load(path).named_sums())


def largest_differences(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, float]:
    """How far sums are apart: kind of sums to the largest difference of a block, relative to its norm.

    Blocks below a thousandth of their kind's largest norm are what a norm leaves of its own input: rounding noise.
    Their differences count relative to that largest norm.

    Args:
        mine: Name to tensor; see `Sums.named` and `Content.named_sums`.
        theirs: The tensors that are right.
    """
    kinds: dict[str, list[str]] = {}
    for name in theirs:
        kinds.setdefault(re.split(r"[/[]", name)[0], []).append(name)
    norms = {name: float(values.double().norm()) for name, values in theirs.items()}
    off = {}
    for kind, names in kinds.items():
        largest = max(norms[name] for name in names)
        scales = {name: norms[name] if norms[name] > 1e-3 * largest else max(largest, 1e-300) for name in names}
        apart = {name: float((mine[name].double() - theirs[name].double()).norm()) for name in names}
        off[kind] = max(apart[name] / scales[name] for name in names)
    return off


STAGES = {"shape": shape, "correctness": correctness, "kernel": kernel, "harvest": harvest}


def main() -> None:
    """Run one stage and print its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shape", default="ss-2l", choices=SHAPES)
    parser.add_argument("--batch", type=int, default=4, help="sequences")
    parser.add_argument("--density", type=float, default=0.01, help="share of non-zero causal importances")
    parser.add_argument("--rounds", type=int, default=3, help="times everything is run")
    parser.add_argument("--workspace_mb", type=int, default=8192, help="of the closed form")
    options = parser.parse_args()
    print(json.dumps(STAGES[options.stage](options)))


if __name__ == "__main__":
    main()
