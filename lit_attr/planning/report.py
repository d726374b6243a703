"""The text of a plan as people read it, and in plain types."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lit_attr.harvest.needs import WAYS_OUT
from lit_attr.planning.grid import Grid
from lit_attr.planning.plan import Plan
from lit_attr.topology.address import EMBED

_SHOWN = 3  # grids behind the proposed one


def size(nbytes: float) -> str:
    """Bytes as people read them.

    Example:
        >>> size(12_300_000_000), size(4_560)
        ('12.3 GB', '4.56 kB')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.3g} {name}"
    return f"{nbytes:.0f} B"


def duration(hours: float) -> str:
    """Hours as people read them.

    Example:
        >>> duration(0.001), duration(0.5), duration(2.5), duration(1000)
        ('3.6 s', '30 min', '2.5 h', '1,000 h')
    """
    if hours < 1 / 60:
        return f"{hours * 3600:.2g} s"
    if hours < 1:
        return f"{hours * 60:.2g} min"
    return f"{hours:.2g} h" if hours < 10 else f"{hours:,.0f} h"


def lines(plan: Plan) -> Iterator[str]:
    """A plan, line by line."""
    counts, live = list(plan.n_components.values()), plan.estimate.live
    each = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    yield f"components   {sum(counts):,} in {len(counts)} matrices of {plan.architecture}, {each} in each"
    n_sources = sum(n for layer, n in live.sources.items() if layer != EMBED)
    yield (
        f"live         {n_sources:,} sources, {sum(live.targets.values()):,} targets, {live.sources[EMBED]:,} tokens: "
        f"{plan.estimate.origin}"
    )
    if sum(live.targets.values()) > n_sources:
        yield "             --model.alive_batches N or --model.harvest_db FILE leave components out that never live"
    yield f"             {plan.load.density:.2%} of a layer's components have causal importance at a position"
    weights = ", ".join(f"{name} {size(nbytes)}" for name, nbytes in plan.worker.weights.items())
    yield f"weights      {size(sum(plan.worker.weights.values()))}: {weights}"
    yield (
        f"sequence     {plan.load.seq_len:,} tokens: forwards and captures {size(plan.worker.row)}, "
        f"workspace {size(plan.worker.workspace)}"
    )
    yield from _grids(plan)
    disk = plan.disk
    yield (
        f"disk         parts {size(disk.parts)} for each data shard; result: compact {size(disk.compact)} "
        f"({size(disk.rounded)} in bfloat16), dense {size(disk.dense)}, strongest only {size(disk.strongest)}"
    )
    yield f"operations   {', '.join(f'{gflops:.3g} GFLOP a token for {name}' for name, gflops in plan.gflops.items())}"
    yield f"speed        {plan.machine.speed.origin}"
    yield from _proposal(plan)


def _grids(plan: Plan) -> Iterator[str]:
    on_device = plan.machine.device_bytes is not None
    names = list(plan.grids[0].hours)
    head = f"  {'data x targets':<18}{'device':>11}" if on_device else f"  {'data x targets':<18}"
    yield f"grids        of {plan.machine.n_workers} workers, {plan.load.n_tokens:.3g} tokens; bytes of each worker"
    yield head + f"{'host':>10}" + "".join(f"{name:>10}" for name in names)
    chosen = plan.grids.index(plan.proposal) if plan.proposal else len(plan.grids)
    for grid in plan.grids[: chosen + _SHOWN]:
        shape = f"{grid.data_shards} x {grid.target_shards}" + (f", {grid.rounds} turns" if grid.rounds > 1 else "")
        device = "" if grid.device_bytes is None else f"{size(grid.device_bytes):>11}"
        hours = "".join(f"{duration(grid.hours[name]):>10}" for name in names)
        fits = "" if grid.fits else "  does not fit"
        yield f"  {shape:<18}{device}{size(grid.host_bytes):>10}{hours}{fits}"


def _proposal(plan: Plan) -> Iterator[str]:
    grid = plan.proposal
    if grid is None:
        yield f"proposal     none: {' '.join(_too_large(plan))} {WAYS_OUT}"
        return
    yield (
        f"proposal     {grid.data_shards} x {grid.target_shards} workers, --data.target_shards {grid.target_shards} "
        f"--data.batch_size {plan.n_rows} --writer.commit_minutes {plan.commit_minutes:.0f} "
        f"--model.workspace_mb {plan.worker.workspace >> 20}"
    )


def _too_large(plan: Plan) -> Iterator[str]:
    last, machine = plan.grids[-1], plan.machine
    if machine.device_bytes is not None and last.device_bytes is not None and last.device_bytes > machine.device_bytes:
        yield f"a worker needs {size(last.device_bytes)} of a device's {size(machine.device_bytes)}."
    if last.host_bytes * machine.n_workers > machine.host_bytes:
        yield (
            f"{machine.n_workers} workers need {size(last.host_bytes * machine.n_workers)} of a host's "
            f"{size(machine.host_bytes)}."
        )


def entries(plan: Plan) -> dict[str, Any]:
    """A plan in plain types."""
    return {**asdict(plan), "proposal": None if plan.proposal is None else _grid_entries(plan.proposal)}


def _grid_entries(grid: Grid) -> dict[str, Any]:
    return asdict(grid)
