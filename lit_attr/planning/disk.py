"""What a harvest writes to disk."""

from dataclasses import dataclass
from functools import partial

import torch

from lit_attr.harvest.needs import Live, sums_nbytes
from lit_attr.storage.result_form import result_nbytes
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.words import Harvested

# Of each key, kind of neighbour and metric in a file of strongest edges: its lists, of both signs, raw and normalised.
# Of an entry a position and a number, of a list what was dropped, of a record a check sum and which key it is of.
_LISTS, _ENTRY, _DROPPED, _CHECK_SUM, _KEY = 4, 8, 16, 4, 8


@dataclass(frozen=True)
class DiskBytes:
    """Bytes of the files of a harvest.

    Attributes:
        parts: The parts of all workers of one data shard.
        compact: The result, only what lives.
        rounded: Its size with sums of edges into components in bfloat16.
        dense: The result in the original's format.
        strongest: The strongest edges of everything alone.
    """

    parts: int
    compact: int
    rounded: int
    dense: int
    strongest: int

    @classmethod
    def of(
        cls, topology: Topology, live: Live, metrics: Harvested, squares_dtype: torch.dtype | None, keep: int
    ) -> "DiskBytes":
        """Count the bytes.

        Args:
            topology: The attribution graph.
            live: What has a place in the tables.
            metrics: Which metrics are harvested.
            squares_dtype: Precision of the squares that standard errors need; None without.
            keep: Entries that are kept of a row.
        """
        result = partial(result_nbytes, topology, metrics, uncertainty=squares_dtype is not None)
        return cls(
            parts=sums_nbytes(live.layout(topology, metrics, squares_dtype), live, torch.float64),
            compact=result(live.sources, live.targets),
            rounded=result(live.sources, live.targets, "bfloat16"),
            dense=result(),
            strongest=_strongest_nbytes(topology, live, metrics, keep),
        )


def _strongest_nbytes(topology: Topology, live: Live, metrics: Harvested, keep: int) -> int:
    """Bytes of lists and normalisers, if every key that lives has an edge."""
    n_metrics, of_output = 2 if metrics == "both" else 1, topology.sources.get(OUTPUT, ())

    def lists(n_keys: int, n_neighbours: int, n_metrics: int) -> int:
        record = _LISTS * n_metrics * (_ENTRY * min(keep, n_neighbours) + _DROPPED) + _CHECK_SUM
        return n_keys * (record + _KEY) if n_neighbours else 0

    total = 4 * (2 * sum(topology.n_components.values()) + topology.vocab_size) + 8 * topology.vocab_size
    for source, n_keys in live.sources.items():
        fed = sum(live.targets[target] for target in topology.component_targets if source in topology.sources[target])
        total += lists(n_keys, fed, n_metrics) + lists(n_keys, topology.vocab_size if source in of_output else 0, 1)
    for target, sources in topology.sources.items():
        n_keys, of = (topology.vocab_size, 1) if target == OUTPUT else (live.targets[target], n_metrics)
        components = sum(live.sources[source] for source in sources if source != EMBED)
        total += lists(n_keys, components, of) + lists(n_keys, live.sources[EMBED] if EMBED in sources else 0, of)
        total += len(sources) * of * (_LISTS * (_ENTRY * keep + _DROPPED) + _CHECK_SUM)  # of pairs of layers
    return total
