"""The plan of a harvest: what each grid of workers needs, what it takes, and which grid is proposed."""

from dataclasses import dataclass
from math import ceil

import torch

from lit_attr.attribution.engine_choice import choose_engines
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.shape import Shape
from lit_attr.planning.disk import DiskBytes
from lit_attr.planning.flops import Density, work_per_token
from lit_attr.planning.live import LiveEstimate
from lit_attr.planning.speeds import Speed
from lit_attr.planning.worker import WorkerBytes, largest_shard, workspace_needed
from lit_attr.topology.words import Harvested

_SHARDS = tuple(1 << power for power in range(9))
# Of a device's memory, what is used without being told: allocators fragment.
_SHARE = 0.9
# A commit may take a fiftieth of the time, on a disk that writes so many bytes a second.
_COMMIT_SHARE, _DISK_RATE, _COMMIT_MINUTES = 0.02, 1e9, 10
_HOUR = 3600.0


@dataclass(frozen=True)
class Machine:
    """What a harvest may use.

    Attributes:
        device_bytes: Memory of a device; None for workers on the processor.
        host_bytes: Memory of a host.
        n_workers: Workers, all on one host.
        speed: How fast a worker is.
    """

    device_bytes: float | None
    host_bytes: float
    n_workers: int
    speed: Speed


@dataclass(frozen=True)
class Load:
    """How much is harvested.

    Attributes:
        n_tokens: Number of tokens.
        seq_len: Positions of a sequence.
        density: Share of a layer's components with causal importance at a position.
    """

    n_tokens: float
    seq_len: int
    density: float


@dataclass(frozen=True)
class Grid:
    """A grid of workers.

    Attributes:
        data_shards: Workers that deal the data out.
        target_shards: Workers that deal the targets out.
        rounds: How often the workers there are must take turns.
        device_bytes: Of a worker on its device; None on the processor.
        host_bytes: Of a worker on its host.
        fits: Whether both fit.
        hours: Metrics (`attr`, `both`) to the hours that the harvest takes.
    """

    data_shards: int
    target_shards: int
    rounds: int
    device_bytes: int | None
    host_bytes: int
    fits: bool
    hours: dict[Harvested, float]


@dataclass(frozen=True)
class Plan:
    """The plan of a harvest.

    Attributes:
        architecture: Class of the target model.
        n_components: Layer to its number of components.
        estimate: What is expected to live.
        metrics: Which metrics are harvested.
        abs_share: Share of the sequences from which `attr_abs` is taken.
        load: How much is harvested.
        machine: What it may use.
        worker: Bytes of a worker beside its sums.
        n_rows: Sequences that a worker of the proposed grid takes at once.
        gflops: Metrics to 10^9 operations for a token.
        grids: The grids that were looked at.
        disk: What it writes.
        commit_minutes: Time between commits.
    """

    architecture: str
    n_components: dict[str, int]
    estimate: LiveEstimate
    metrics: Harvested
    abs_share: float
    load: Load
    machine: Machine
    worker: WorkerBytes
    n_rows: int
    gflops: dict[Harvested, float]
    grids: list[Grid]
    disk: DiskBytes
    commit_minutes: float

    @property
    def proposal(self) -> Grid | None:
        """The first grid that fits, which has the fewest target shards; None if none does."""
        return next((grid for grid in self.grids if grid.fits), None)


def make_plan(
    harvester: AttributionHarvester, shape: Shape, estimate: LiveEstimate, load: Load, machine: Machine, keep: int
) -> Plan:
    """Plan a harvest.

    Args:
        harvester: Its settings; nothing is loaded.
        shape: The model without numbers.
        estimate: What is expected to live.
        load: How much is harvested.
        machine: What it may use.
        keep: Entries of a row in a result of the strongest alone.

    Raises:
        ConfigurationError: If the engine that is asked for is not exact for this model.
    """
    topology, live, metrics = shape.topology, estimate.live, harvester.metrics
    choice = choose_engines(harvester.engine_name, shape.model, topology)
    one_row = Density(load.density, load.seq_len, 1)
    workspace = max(harvester.workspace_bytes, workspace_needed(shape, live, one_row)) if choice.closed_form else 0
    worker = WorkerBytes.of(shape, load.seq_len, workspace, graph=bool(choice.autograd))
    on_device = torch.float64 if machine.device_bytes is None else torch.float32

    def sums(dtype: torch.dtype, n_shards: int) -> int:
        return largest_shard(topology, live, metrics, dtype, n_shards)

    memory = _SHARE * (machine.host_bytes / machine.n_workers if machine.device_bytes is None else machine.device_bytes)
    free = {n_shards: memory - sums(on_device, n_shards) for n_shards in _SHARDS}
    first = next((n for n in _SHARDS if worker.certain <= free[n]), _SHARDS[-1])
    n_rows = worker.rows_within(free[first])
    work = work_per_token(shape, choice, live, Density(load.density, load.seq_len, n_rows))
    shares: dict[Harvested, float] = {"attr": 0.0}
    if metrics == "both":
        shares["both"] = harvester.abs_share
    seconds = {name: machine.speed.seconds(work, share) for name, share in shares.items()}
    signed, more = sum(work.flops.values()), sum(work.abs_flops.values())

    def grid(n_shards: int) -> Grid:
        totals = sums(torch.float64, n_shards)
        weights = sum(worker.weights.values())
        if machine.device_bytes is None:
            on_host, device = worker.certain + totals, None
        else:  # weights leave the host before totals are there
            on_host, device = max(weights, totals), worker.certain + sums(torch.float32, n_shards)
        fits = on_host * machine.n_workers <= machine.host_bytes and (
            device is None or device <= _SHARE * (machine.device_bytes or 0)
        )
        data_shards, rounds = max(1, machine.n_workers // n_shards), ceil(n_shards / machine.n_workers)
        hours = {
            name: rounds * (forwards + engine / n_shards) * load.n_tokens / data_shards / _HOUR
            for name, (forwards, engine) in seconds.items()
        }
        return Grid(data_shards, n_shards, rounds, device, on_host, fits, hours)

    grids = [grid(n_shards) for n_shards in _SHARDS]
    chosen = next((grid for grid in grids if grid.fits), grids[-1])
    commit = sums(torch.float64, chosen.target_shards) / _DISK_RATE / _COMMIT_SHARE / 60
    return Plan(
        architecture=shape.model.table.architecture,
        n_components=dict(topology.n_components),
        estimate=estimate,
        metrics=metrics,
        abs_share=harvester.abs_share,
        load=load,
        machine=machine,
        worker=worker,
        n_rows=n_rows,
        gflops={name: (signed + share * more) / 1e9 for name, share in shares.items()},
        grids=grids,
        disk=DiskBytes.of(topology, live, metrics, keep),
        commit_minutes=max(_COMMIT_MINUTES, commit),
    )
