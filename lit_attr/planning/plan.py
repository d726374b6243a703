"""The plan of a harvest: what each grid of workers needs, what it takes, and which grid is proposed."""

from dataclasses import dataclass, replace

import torch

from lit_attr.attribution.engine_choice import choose_engines
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.shape import Shape
from lit_attr.planning.disk import DiskBytes
from lit_attr.planning.flops import Density, work_per_token
from lit_attr.planning.grid import Grid, Machine, dealt, grid_of
from lit_attr.planning.live import LiveEstimate
from lit_attr.planning.worker import WorkerBytes, workspace_needed
from lit_attr.topology.words import Harvested

# A commit may take a fiftieth of the time, on a disk that writes so many bytes a second.
_COMMIT_SHARE, _DISK_RATE, _COMMIT_MINUTES = 0.02, 1e9, 10


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
    device = torch.device("cpu" if machine.device_bytes is None else "cuda")
    squares_dtype = torch.float32 if harvester.uncertainty else None
    layout = live.layout(topology, metrics, squares_dtype)
    worker = WorkerBytes.of(shape, choice, layout, one_row, workspace, device)
    shards = dealt(layout, live, device)
    rooms = [machine.per_worker - some.beside_weights(machine) for some in shards]
    n_rows = worker.rows_within(next((room for room in rooms if worker.certain <= room), rooms[-1]))
    work = work_per_token(shape, choice, live, replace(one_row, n_rows=n_rows))
    shares: dict[Harvested, float] = {"attr": 0.0}
    if metrics == "both":
        shares["both"] = harvester.abs_share
    seconds = {name: machine.speed.seconds(work, share) for name, share in shares.items()}
    signed, more = sum(work.flops.values()), sum(work.abs_flops.values())
    grids = [grid_of(some, worker, machine, seconds, load.n_tokens) for some in shards]
    written = next(
        (some.sums.totals for some, grid in zip(shards, grids, strict=True) if grid.fits), shards[-1].sums.totals
    )
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
        disk=DiskBytes.of(topology, live, metrics, squares_dtype, keep),
        commit_minutes=max(_COMMIT_MINUTES, written / _DISK_RATE / _COMMIT_SHARE / 60),
    )
