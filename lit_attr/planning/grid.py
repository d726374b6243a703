"""Grids of workers (data x target shards): what each worker of one needs, and how long it takes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil

import torch

from lit_attr.errors import ConfigurationError
from lit_attr.harvest.needs import Live, SumsBytes
from lit_attr.planning.speeds import Speed
from lit_attr.planning.worker import WorkerBytes, largest_shard
from lit_attr.topology.layout import Layout
from lit_attr.topology.words import Harvested

_SHARDS = tuple(1 << power for power in range(7))
# Of a device's memory, what is used without being told: allocators fragment, and tables grow ahead of what lives.
_USABLE = 0.9
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

    @property
    def per_worker(self) -> float:
        """Bytes that a worker may use where it computes."""
        if self.device_bytes is not None:
            return _USABLE * self.device_bytes
        return self.host_bytes / self.n_workers


@dataclass(frozen=True)
class Grid:
    """A grid of workers.

    Attributes:
        data_shards: Workers that deal the data out.
        target_shards: Workers that deal the targets out.
        rounds: How often the workers there are must take turns.
        device_bytes: Bytes of a worker on its device; None on the processor.
        host_bytes: Bytes of a worker on its host.
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
class Shards:
    """The sums of a harvest, dealt out over some target shards.

    Attributes:
        n_shards: Number of shards.
        sums: Bytes of the largest.
    """

    n_shards: int
    sums: SumsBytes

    def beside_weights(self, machine: Machine) -> int:
        """Bytes of sums where a worker computes."""
        return self.sums.recent + (self.sums.totals if machine.device_bytes is None else 0)


def dealt(layout: Layout, live: Live, device: torch.device) -> list[Shards]:
    """Deal the sums of a harvest out over 1, 2, 4 and so on target shards, as far as there is something for each.

    Args:
        layout: The sums of the whole harvest.
        live: What has a place in the tables.
        device: Where workers compute.
    """
    shards = []
    for n in _SHARDS:
        with suppress(ConfigurationError):  # there is not enough for so many
            shards.append(Shards(n, largest_shard(layout, live, device, n)))
    return shards


def grid_of(
    shards: Shards,
    worker: WorkerBytes,
    machine: Machine,
    seconds: Mapping[Harvested, tuple[float, float]],
    n_tokens: float,
) -> Grid:
    """The grid with some target shards that uses all workers there are.

    Args:
        shards: The target shards.
        worker: Bytes of a worker beside its sums.
        machine: What may be used.
        seconds: Metrics to the time of a token: what every worker pays, and what target shards divide.
        n_tokens: Number of tokens.
    """
    if machine.device_bytes is None:
        on_host, on_device = worker.certain + shards.beside_weights(machine), None
    else:  # weights leave the host before totals are there
        on_host = max(sum(worker.weights.values()), shards.sums.totals)
        on_device = worker.certain + shards.sums.recent
    fits = on_host * machine.n_workers <= machine.host_bytes
    if on_device is not None:
        fits = fits and on_device <= machine.per_worker
    data_shards, rounds = max(1, machine.n_workers // shards.n_shards), ceil(shards.n_shards / machine.n_workers)
    hours = {
        name: rounds * (forwards + engine / shards.n_shards) * n_tokens / data_shards / _HOUR
        for name, (forwards, engine) in seconds.items()
    }
    return Grid(data_shards, shards.n_shards, rounds, on_device, on_host, fits, hours)
