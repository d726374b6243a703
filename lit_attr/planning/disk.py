"""What a harvest writes to disk."""

from dataclasses import dataclass

import torch

from lit_attr.harvest.needs import Live, sums_nbytes
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.words import Harvested

# Of each row that is kept: its strongest entries of both signs, raw and normalised, an index and a number each.
_LISTS, _ENTRY = 4, 8


@dataclass(frozen=True)
class DiskBytes:
    """Bytes of the files of a harvest.

    Attributes:
        parts: The parts of all workers of one data shard.
        compact: The result, only what lives.
        dense: The result in the original's format.
        strongest: The strongest entries of every row alone.
    """

    parts: int
    compact: int
    dense: int
    strongest: int

    @classmethod
    def of(cls, topology: Topology, live: Live, metrics: Harvested, keep: int) -> "DiskBytes":
        """Count the bytes.

        Args:
            topology: The attribution graph.
            live: What has a place in the tables.
            metrics: Which metrics are harvested.
            keep: Entries that are kept of a row.
        """
        return cls(
            parts=sums_nbytes(live.layout(topology, metrics), live, torch.float64),
            compact=result_nbytes(topology, live, metrics),
            dense=result_nbytes(topology, Live.all(topology), metrics),
            strongest=_strongest_nbytes(topology, live, metrics, keep),
        )


def result_nbytes(topology: Topology, live: Live, metrics: Harvested) -> int:
    """Bytes of the tensors of a result, in float32."""
    n_metrics = 2 if metrics == "both" else 1
    edges = sum(
        live.targets[target] * live.sources[source]
        for target in topology.component_targets
        for source in topology.sources[target]
    )
    of_output = topology.d_model * sum(live.sources[source] for source in topology.sources.get(OUTPUT, ()))
    whole = topology.d_model * topology.vocab_size + 2 * sum(topology.n_components.values()) + topology.vocab_size
    return 4 * (n_metrics * edges + of_output + whole) + 8 * topology.vocab_size


def _strongest_nbytes(topology: Topology, live: Live, metrics: Harvested, keep: int) -> int:
    into = {
        target: sum(live.sources[source] for source in topology.sources[target])
        for target in topology.component_targets
    }
    out_of = {source: 0 for source in live.sources}
    for target in topology.component_targets:
        for source in topology.sources[target]:
            out_of[source] += live.targets[target]
    n_kept = sum(live.targets[target] * min(keep, n) for target, n in into.items())
    n_kept += sum(live.sources[source] * min(keep, n) for source, n in out_of.items())
    ends = 2 * topology.vocab_size * min(keep, live.sources[EMBED])
    return (2 if metrics == "both" else 1) * _LISTS * _ENTRY * n_kept + _LISTS * _ENTRY * ends
