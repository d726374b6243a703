"""Everything that is to be known of lit_attr on a GPU, in less than nine minutes on one H100.

    python benchmarks/gpu.py --out gpu.json [--cpu]

The `gpu` tests; the engine in float32 against float64; the kernel for MLPs against products of torch; whole harvests on
one device and on two; tokens per second, share of the product rate, memory, launches and waits of shapes. A stage that
fails or exceeds its time is recorded, and the others run. `--cpu` runs a reduced set on a machine without a GPU: so the
script is known to work.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
# All stages together, in seconds; what has not begun by then is not run.
_ALL_S = 530
_SHOWN = (
    "tokens_per_second",
    "attr_alone_ratio_to_two_forwards",
    "fraction_of_matmul_rate",
    "peak_allocated_mb",
    "launches_per_batch",
    "waits_per_batch",
)


@dataclass(frozen=True)
class Stage:
    """One part of the measurements.

    Attributes:
        name: Its key in the output.
        arguments: Command line behind `python`.
        seconds: Most time that it may take.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: int


def stage(name: str, seconds: int, kind: str, *options: str) -> Stage:
    """A stage of `gpu_stages.py`."""
    return Stage(name, ("benchmarks/gpu_stages.py", kind, *options), seconds)


def shape(name: str, batch: int, density: str, seconds: int) -> Stage:
    """A stage that times a shape."""
    options = ("--shape", name, "--batch", str(batch), "--density", density)
    return stage(f"{name} {density}", seconds, "shape", *options)


ON_GPU = [
    Stage("tests", ("-m", "pytest", "-q", "-n", "0", "-m", "gpu", "-p", "no:cacheprovider", "tests"), 120),
    stage("correctness", 60, "correctness", "--batch", "8"),
    stage("kernel", 60, "kernel"),
    stage("harvest", 90, "harvest"),
    shape("ss-2l", 64, "0.01", 60),
    shape("pile-4l", 8, "0.005", 75),
    shape("pile-4l", 8, "0.01", 75),
    shape("pile-4l", 8, "0.03", 90),
    shape("llama-1b-2l", 8, "0.01", 90),
]
_SMALL = ("--device", "cpu", "--batch", "1", "--rounds", "1", "--workspace_mb", "256")
_TEST = "tests/attribution/closed_form/test_mlp_kernel.py::test_without_a_device_the_plain_way_is_taken"
ON_CPU = [
    Stage("tests", ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", _TEST), 120),
    stage("correctness", 120, "correctness", *_SMALL),
    stage("kernel", 120, "kernel", *_SMALL),
    stage("ss-2l 0.01", 120, "shape", *_SMALL),
    stage("harvest", 120, "harvest", *_SMALL),
]


def run(stage: Stage, limit: float, environment: dict[str, str]) -> dict[str, Any]:
    """Run a stage in a process of its own.

    Args:
        stage: The stage.
        limit: Seconds after which it is ended, with all processes that it started.
        environment: Variables of the process.

    Returns:
        Whether it did what it should, its seconds, and its result, or the end of what it said.
    """
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *stage.arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=limit)
        problem = None if process.returncode == 0 else f"it ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        problem = f"it took more than {limit:.0f} s"
    record: dict[str, Any] = {"ok": problem is None, "seconds": round(time.monotonic() - begin, 1)}
    last = said.rstrip().rpartition("\n")[2]
    if problem is not None:
        return record | {"error": problem, "said": said[-4000:]}
    result = json.loads(last) if last.startswith("{") else {"said": last}
    return record | {"ok": result.get("right", True), "result": result}


def machine(on_cpu: bool) -> dict[str, Any]:  # noqa: FBT001 - the flag of the command line
    """What is measured: device, and versions of all that computes."""

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    about: dict[str, Any] = {name: installed(name) for name in ("lit_attr", "torch", "triton", "lightning", "numpy")}
    about |= {"python": platform.python_version(), "cuda": torch.version.cuda, "processors": os.cpu_count()}
    if on_cpu:
        return about | {"device": f"CPU ({platform.machine()})", "n_devices": 0}
    properties = torch.cuda.get_device_properties(0)
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return about | {
        "device": properties.name,
        "memory_gb": properties.total_memory / 1e9,
        "n_devices": torch.cuda.device_count(),
        "driver": driver.stdout.partition("\n")[0],
    }


def row(name: str, record: dict[str, Any]) -> str:
    """A line of the table."""
    result: dict[str, Any] = record.get("result", {})
    if "tokens_per_second" in result:
        result = {key: result[key] for key in _SHOWN if key in result}
    shown = {"": record["error"]} if "error" in record else {**result, **result.get("tflop_per_second", {})}
    figures = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}".strip()
        for key, value in shown.items()
        if not isinstance(value, dict)
    ]
    return f"{name:18} {'ok' if record['ok'] else 'FAILED':6} {record['seconds']:6.1f} s  {'; '.join(figures)}"


def main() -> None:
    """Run all stages; the exit code is 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file that is written after every stage")
    parser.add_argument("--cpu", action="store_true", help="a reduced set without a GPU, in less than a minute")
    options = parser.parse_args()
    if not options.cpu and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here: --cpu runs a reduced set")
    report: dict[str, Any] = {"machine": machine(options.cpu), "stages": {}}
    print(*(f"{key} {value}" for key, value in report["machine"].items()), sep=", ", flush=True)
    # Kernels are compiled on a GPU, and interpreted where there is none.
    environment = {**os.environ, "TRITON_INTERPRET": str(int(options.cpu))}
    end = time.monotonic() + _ALL_S
    for one in ON_CPU if options.cpu else ON_GPU:
        left = end - time.monotonic()
        record = {"ok": False, "seconds": 0.0, "error": "not run: no time was left"}
        if left > 0:
            record = run(one, min(one.seconds, left), environment)
        report["stages"][one.name] = record
        print(row(one.name, record), flush=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(not all(record["ok"] for record in report["stages"].values()))


if __name__ == "__main__":
    main()
