"""What thousands of workers cost before they compute: status, restarts with fewer workers, extension, merge.

    python benchmarks/coordination.py [--workers 1000] [--restarted 500] [--processes 8] [--folder /tmp]

A made-up harvest of tiny parts is written under the folder, and removed afterwards. Each figure is of real commands in
processes of their own: a restart is begun by several processes at once, one of which freezes what is there while the
others wait. The output is one JSON object; seconds are wall-clock unless they say CPU.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.shapes import all_sums, all_targets
from lit_attr.data.batch_ids import to_ranges
from lit_attr.parts.freeze import current_generation
from lit_attr.parts.generations import Generation, begun_generation
from lit_attr.parts.header import Header
from lit_attr.parts.ledger import Ledger
from lit_attr.parts.part import write_part
from lit_attr.parts.plan import Plan
from lit_attr.parts.read_vectors import publish_read_vectors
from lit_attr.parts.worker_record import WorkerRecord
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums

_TOPOLOGY = Topology(
    {"0.mlp.up": 4, "0.mlp.down": 4},
    {"0.mlp.up": ("embed",), "0.mlp.down": ("0.mlp.up",), "output": ("embed", "0.mlp.down")},
    vocab_size=16,
    d_model=4,
    inputs={name: name for name in ("0.mlp.up", "0.mlp.down", "output")},
    widths={"0.mlp.up": 4, "0.mlp.down": 4, "output": 4},
)

# Runs a command, and says the most memory that it had. What the system says of an ended process counts its parent, too.
_COMMAND = """
import sys
from lit_attr.cli.main import main
code = main()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def begin(folder: Path, n_workers: int, n_batches: int) -> Generation:
    """A harvest of so many workers, none of which has committed anything."""
    plan = Plan({"benchmark": "coordination"}, n_batches)
    plan.publish(folder)
    Header(_TOPOLOGY, all_targets(_TOPOLOGY), torch.randn(_TOPOLOGY.d_model, _TOPOLOGY.vocab_size), 0.0, {}).publish(
        folder
    )
    publish_read_vectors(folder, {layer: torch.randn(4, n) for layer, n in _TOPOLOGY.n_components.items()})
    return current_generation(folder, plan, n_workers, n_batches)


def commit_all(generation: Generation, share: float) -> None:
    """Let every worker commit the first batches of what it was assigned."""
    sums = Sums.zeros(all_sums(_TOPOLOGY), torch.float64)
    for rank in range(generation.world_size):
        ids = generation.assigned(rank)
        ids = ids[: round(len(ids) * share)]
        sums.token_count[0] = len(ids)
        for n_tokens in (sums.n_tokens, sums.n_abs_tokens):
            n_tokens.fill_(len(ids))
        ledger = Ledger(
            generation.plan.digest, generation.number, rank, generation.world_size, to_ranges(ids), len(ids)
        )
        write_part(generation.part_path(rank), sums, ledger)
        WorkerRecord.of_this_process().write(generation.record_path(rank))


def restart(folder: Path, n_workers: int, n_batches: int, n_processes: int) -> dict[str, float]:
    """Begin the next generation by several processes at once."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    ready = context.Barrier(n_processes)
    arguments = (folder, n_workers, n_batches, ready, results)
    workers = [context.Process(target=_restart_one, args=arguments) for _ in range(n_processes)]
    for worker in workers:
        worker.start()
    figures = sorted(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    *waiting, freezing = figures
    return {
        "seconds_of_the_slowest": round(max(seconds for _, seconds in figures), 2),
        "cpu_seconds_of_who_freezes": round(freezing[0], 2),
        "cpu_seconds_of_each_other": round(max((cpu for cpu, _ in waiting), default=0.0), 2),
    }


def _restart_one(folder: Path, n_workers: int, n_batches: int, ready: Any, results: Any) -> None:  # noqa: ANN401
    plan = Plan.load(folder)
    ready.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    generation = current_generation(folder, plan, n_workers, n_batches)
    generation.assigned(0)
    results.put((time.process_time() - cpu, time.perf_counter() - wall))


def command(*words: str) -> dict[str, float]:
    """Seconds and memory of a command of `lit-attr`, start of Python included."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _COMMAND, *words], capture_output=True, text=True, check=True)
    return {"seconds": round(time.perf_counter() - start, 2), "peak_mb": round(int(done.stderr.split()[-1]) / 1e3)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--restarted", type=int, default=500, help="workers after the restart")
    parser.add_argument("--processes", type=int, default=8, help="that begin a generation at once")
    parser.add_argument("--batches", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary) / "dataset_attributions" / "run" / "da-many"
        folder.mkdir(parents=True)
        commit_all(begin(folder, options.workers, options.batches), 0.5)
        figures: dict[str, Any] = {"workers": options.workers, "batches": options.batches}
        figures["status"] = command("status", str(folder))
        figures["restart"] = restart(folder, options.restarted, options.batches, options.processes)
        figures["status_after_restart"] = command("status", str(folder))
        commit_all(begun_generation(folder), 1.0)
        figures["merge"] = {"parts": options.workers + options.restarted, **command("merge", str(folder))}
        n_more = options.batches + options.batches // 10
        figures["extension"] = restart(folder, options.restarted, n_more, options.processes)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
