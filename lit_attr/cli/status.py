"""`lit-attr status`: how far a running harvest is."""

import math
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from lit_attr.cli.arguments import finite, harvest_parser
from lit_attr.cli.find_result import find_harvest
from lit_attr.parts.status import HarvestStatus, WorkerStatus, status
from lit_attr.parts.worker_record import commands

# A worker is called silent after so many minutes without a commit.
_SILENT_MINUTES = 30.0
_SHOWN = 10  # workers
_INDENT = " " * 14


def run(arguments: Sequence[str]) -> None:
    """Print the state of a harvest across its workers.

    Args:
        arguments: Words of the command line behind `status`.

    Raises:
        RunNotFoundError: If there is no such harvest.
        StorageError: If a file of it is damaged.
    """
    parser = harvest_parser("status", "Show how far a harvest is, from what its workers have committed.")
    parser.add_argument(
        "--silent_minutes",
        type=finite,
        default=_SILENT_MINUTES,
        help="name workers that have not committed for so long (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    folder = find_harvest(options.run, options.out_dir, options.subrun_id)
    state = status(folder)
    merged = "not merged yet"
    if state.n_merged is not None:
        merged = "merged" if state.n_merged == state.n_batches else f"merged when they were {state.n_merged}"
    print(f"{folder}\n  coverage    {state.n_done} of {state.n_batches} batches ({merged})")
    for shard in state.shards if len(state.shards) > 1 else []:
        n_done, workers = shard.n_done, _n_done_of(shard.workers)
        print(f"{_INDENT}target shard {shard.number}: {n_done} of {shard.n_batches} batches, {workers} workers done")
    print(f"  workers     {_n_done_of(state.workers)} done")
    if not state.is_done:
        left = state.seconds_left
        eta = _duration(left) if math.isfinite(left) else "unknown"
        print(f"  speed       {state.tokens_per_second:,.0f} tokens/s\n  time left   {eta}")
    if state.last_look is not None:
        print(f"  {'settled' if state.is_settled else 'looked':<12}{state.last_look}")
    for line in _troubles(state, time.time(), options.silent_minutes * 60):
        print(line)


def _n_done_of(workers: Sequence[WorkerStatus]) -> str:
    return f"{sum(worker.n_done == worker.n_batches for worker in workers)} of {len(workers)}"


def _troubles(state: HarvestStatus, now: float, patience: float) -> Iterator[str]:
    """Lines about workers that are silent or have ended early, and the commands that start them again.

    Args:
        state: The state of the harvest.
        now: The time, in seconds since the epoch.
        patience: Seconds after which a worker is called silent.
    """
    if state.n_merged == state.n_batches:
        return
    troubled = [w for w in state.workers if w.has_ended_early or w.silent_for(now) > patience]
    n_shards = len(state.shards)
    kind: str
    for worker in troubled[:_SHOWN]:
        record = worker.record
        if record is not None and worker.has_ended_early:
            kind, since = record.state, f"{_duration(now - (record.ended or now))} ago"
        else:
            kind, since = "silent", f"for {_duration(worker.silent_for(now))}"
        named = f"worker {worker.rank}" + (f" of target shard {worker.shard}" if n_shards > 1 else "")
        line = f"  {kind:<12}{named}, {since}: {worker.n_done} of {worker.n_batches} batches"
        if record is None:
            yield line
            continue
        job = "" if record.job is None else f"job {record.job}, "
        yield f"{line} ({record.host}, {job}process {record.process})"
        yield from (f"{_INDENT}{words}" for words in record.last_words())
        if record.log is not None:
            yield f"{_INDENT}log: {record.log}"
    if len(troubled) > _SHOWN:
        yield f"{_INDENT}and {len(troubled) - _SHOWN} more workers"
    troubled = [w for w in troubled if w.record is not None and w.record.state != "requeued"]
    # Task `rank * n_shards + shard` of slurm/array.sbatch.
    dead = {w.rank * n_shards + w.shard: w.record for w in troubled if w.record is not None}
    for number, command in enumerate(commands(dead)):
        yield f"  {'' if number else 'again':<12}{command}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
