"""Sums to be filled, for a graph whose components are all targets where nothing else is said."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lit_attr.topology.graph import Topology
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums, row_counts
from lit_attr.topology.tables import LiveRows, Table
from lit_attr.topology.words import Harvested


def all_alive(topology: Topology) -> dict[str, Tensor]:
    """All components are targets."""
    return {layer: torch.ones(n, dtype=torch.bool) for layer, n in topology.n_components.items()}


def layout_of(
    topology: Topology,
    metrics: Harvested = "both",
    alive: Mapping[str, Tensor] | None = None,
    squares_dtype: torch.dtype | None = None,
) -> Layout:
    """All sums of a graph; squares where a type of theirs is given."""
    return Layout.of(topology, alive or all_alive(topology), metrics, squares_dtype)


def zero_sums(topology: Topology, dtype: torch.dtype, device: str = "cpu", **layout) -> Sums:
    """Sums as a harvest begins with: no source has a row."""
    return Sums.zeros(layout_of(topology, **layout), dtype, device)


def every_row(layout: Layout) -> dict[str, LiveRows]:
    return {layer: LiveRows(count, np.arange(count)) for layer, count in row_counts(layout).items()}


def full_sums(topology: Topology, dtype: torch.dtype, device: str = "cpu", **layout) -> Sums:
    """Sums in which every source has a row already."""
    known = layout_of(topology, **layout)
    return Sums.zeros(known, dtype, device, every_row(known))


def by_source(table: Table) -> Tensor:
    """A row for every source of the layer."""
    whole = table.numbers.new_zeros(table.live.n_all, table.width)
    whole[torch.from_numpy(table.live.ids)] = table.numbers
    return whole


def named_by_source(sums: Sums) -> dict[str, Tensor]:
    """All sums by name, with a row for every source."""
    return {**{name: by_source(table) for name, table in sums.tables()}, **dict(sums.normalisers())}
