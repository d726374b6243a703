"""What a process of a harvest needs of memory, by shapes alone, and the refusal of what cannot fit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lit_attr.attribution.engine_choice import EngineChoice
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.account import batch_bytes
from lit_attr.harvest.memory import free_bytes
from lit_attr.topology.address import EMBED
from lit_attr.topology.graph import Topology
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums, row_counts
from lit_attr.topology.tables import LiveRows
from lit_attr.topology.words import Harvested

_GB = 1e9
WAYS_OUT = (
    "the ways out: fewer matrices (--model.decomposition.init_args.matrices, without training), --model.metrics attr, "
    "no standard errors (--model.uncertainty false), targets dealt out to workers (--data.target_shards), only "
    "components that live (--model.harvest_db or --model.alive_batches), fewer processes on a machine "
    "(--trainer.devices), or a machine with more memory; lit-attr plan says what each of them needs"
)


@dataclass(frozen=True)
class Live:
    """How many components have a place in tables.

    Attributes:
        sources: Layer, `embed` included, to its number of sources.
        targets: Layer of components to its number of targets.
    """

    sources: Mapping[str, int]
    targets: Mapping[str, int]

    def layout(self, topology: Topology, metrics: Harvested, squares_dtype: torch.dtype | None) -> Layout:
        """The sums of a whole harvest of so many targets, whichever they are; arguments are those of `Layout.of`."""
        counts = topology.n_components
        alive = {layer: torch.arange(n) < self.targets.get(layer, 0) for layer, n in counts.items()}
        return Layout.of(topology, alive, metrics, squares_dtype)

    @classmethod
    def all(cls, topology: Topology) -> "Live":
        """Every component and every token."""
        return cls({**topology.n_components, EMBED: topology.vocab_size}, topology.n_components)

    @classmethod
    def fewest(cls, topology: Topology) -> "Live":
        """One component of each layer, and one token: no harvest has fewer."""
        one = dict.fromkeys(topology.n_components, 1)
        return cls({**one, EMBED: 1}, one)


Part = Literal["target", "components", "importances"]


def weights_nbytes(model: DecomposedModel) -> dict[Part, int]:
    """Bytes of a model's tensors: of the target, the components, and what computes causal importances.

    Args:
        model: The decomposed model; its tensors need no numbers. What several parts share counts for the first.
    """
    parts: dict[Part, nn.Module] = {
        "target": model.target_model,
        "components": model._components,
        "importances": model.ci_fn,
    }
    seen: set[int] = set()
    sizes: dict[Part, int] = {}
    for name, part in parts.items():
        storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in part.state_dict().values()}
        sizes[name] = sum(size for storage, size in storages.items() if storage not in seen)
        seen |= storages.keys()
    return sizes


@dataclass(frozen=True)
class SumsBytes:
    """Bytes of the sums of a process; see `AttributionSums`.

    Attributes:
        totals: Sums over everything so far, and squares, on the host.
        recent: Sums of the updates since the last flush, in the engine's precision, where it computes: on a CPU only
            where there are squares.
    """

    totals: int
    recent: int

    @classmethod
    def of(cls, layout: Layout, live: Live, dtype: torch.dtype, device: torch.device) -> "SumsBytes":
        """Count the bytes.

        Args:
            layout: Which sums.
            live: What has a row in the tables.
            dtype: Precision of the engine.
            device: Where it computes.
        """
        has_recent = device.type != "cpu" or layout.squares_dtype is not None
        recent = sums_nbytes(replace(layout, squares_dtype=None), live, dtype) if has_recent else 0
        return cls(sums_nbytes(layout, live, torch.float64), recent)

    def on_host(self, device: torch.device) -> int:
        """What is on the host, where engines compute on some device."""
        return self.totals + (self.recent if device.type == "cpu" else 0)


def sums_nbytes(layout: Layout, live: Live, dtype: torch.dtype) -> int:
    """Bytes of sums.

    Args:
        layout: Which sums.
        live: What has a row in the tables.
        dtype: Precision of the sums; that of squares is the layout's.
    """
    rows = {layer: LiveRows(n_all, np.arange(live.sources[layer])) for layer, n_all in row_counts(layout).items()}
    targets = {target: ids for target, ids in layout.targets.items() if len(ids)}  # tables without columns take nothing
    return Sums.zeros(replace(layout, targets=targets), dtype, "meta", rows).nbytes


@dataclass(frozen=True)
class Site:
    """Where the processes of a harvest run.

    Attributes:
        device: Where engines compute, `cpu` or a CUDA device.
        n_processes: Processes of one machine, each with weights and sums of its own.
        dtype: Precision of the engine.
        n_shards: Over how many target shards the sums are dealt out.
        mixed: Whether the forwards are in bfloat16.
    """

    device: torch.device
    n_processes: int
    dtype: torch.dtype
    n_shards: int = 1
    mixed: bool = False

    @classmethod
    def of(cls, trainer: Trainer, dtype: torch.dtype, n_shards: int) -> "Site":
        """The place of a trainer.

        Args:
            trainer: The trainer.
            dtype: Precision of the engine.
            n_shards: Over how many target shards the sums are dealt out.
        """
        mixed = trainer.precision == "bf16-mixed"
        return cls(trainer.strategy.root_device, trainer.num_devices, dtype, n_shards, mixed)


def check_fits(
    model: DecomposedModel,
    topology: Topology,
    bounds: tuple[Live, Live],
    metrics: Harvested,
    squares_dtype: torch.dtype | None,
    site: Site,
    seq_len: int | None,
) -> None:
    """Refuse a harvest that needs more memory than is free, before weights are loaded; say it of one that may.

    Args:
        model: The model without numbers, or, where it is loaded already, with them.
        topology: The attribution graph.
        bounds: The fewest and the most that may have a place in the tables.
        metrics: Which metrics are summed.
        squares_dtype: Precision of the squares that standard errors need; None without.
        site: Where it is to run.
        seq_len: Number of positions of a sequence; None where that is not known.

    Raises:
        ConfigurationError: If it does; it names the bytes and the ways out.
    """

    def sums(live: Live) -> SumsBytes:
        return SumsBytes.of(live.layout(topology, metrics, squares_dtype), live, site.dtype, site.device)

    least, most = bounds
    host = torch.device("cpu")
    needed = {host: {"sums": sums(least).on_host(site.device) // site.n_shards}}
    if site.device != host:
        needed[site.device] = {"sums": sums(least).recent // site.n_shards}
    if model.unembedding.is_meta:
        for parts in needed.values():
            parts["weights"] = sum(weights_nbytes(model).values())
        # What bfloat16 saves is not known without running it.
        if seq_len is not None and not site.mixed:
            nothing = EngineChoice([], {}, {}), Layout(topology, (), {})
            one = batch_bytes(model, *nothing, 1, seq_len, 0.0, site.device)
            needed[site.device][f"one sequence of {seq_len} tokens"] = one.forwards
    for place, parts in needed.items():
        total, free = sum(parts.values()), free_bytes(place) / (site.n_processes if place == host else 1)
        if total > free:
            listed = ", ".join(f"{name} {size / _GB:.3g}" for name, size in parts.items())
            raise ConfigurationError(
                f"each process of the harvest needs at least {total / _GB:.3g} GB on {place} ({listed}), where "
                f"{free / _GB:.3g} GB are free for each: {WAYS_OUT}"
            )
    highest, free = sums(most).on_host(site.device) // site.n_shards, free_bytes(host) / site.n_processes
    if highest > free:
        rank_zero_info(
            f"lit_attr: should every component live and every token occur, the sums of a process will take "
            f"{highest / _GB:.3g} GB on the host, where {free / _GB:.3g} GB are free for each; lit-attr plan says more"
        )
