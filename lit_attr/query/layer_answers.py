"""Answers about pairs of layers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from lit_attr.query.answers import Edge, Node, edge_frame
from lit_attr.query.frames import to_frame
from lit_attr.topology.words import AttrMetric

if TYPE_CHECKING:
    import polars

Statistic = Literal["mass", "mean"]


@dataclass(frozen=True)
class LayerMatrix:
    """How much the layers influence each other.

    Attributes:
        metric: `attr` or `attr_abs`.
        statistic: `mass`, the sum of the absolute values of all edges between two layers, or `mean`, that sum divided
            by the number of edges.
        normalized: Whether values are divided by the scales of source and target.
        sources: Layers, in the order of the columns.
        targets: Layers, in the order of the rows.
        values: Of each target for each source; None where the source does not feed the target.
    """

    metric: AttrMetric
    statistic: Statistic
    normalized: bool
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]

    def frame(self) -> "polars.DataFrame":
        """A row for each pair of layers with edges; raises a ConfigurationError if polars is not installed."""
        rows = [
            {"source_layer": source, "target_layer": target, "value": value}
            for target, of_target in zip(self.targets, self.values, strict=True)
            for source, value in zip(self.sources, of_target, strict=True)
            if value is not None
        ]
        return to_frame(rows, {"source_layer": str, "target_layer": str, "value": float})


@dataclass(frozen=True, eq=False)
class LayerBlock:
    """All edges between two layers.

    Attributes:
        sources: Of the columns.
        targets: Of the rows.
        metric: `attr` or `attr_abs`.
        normalized: Whether values are divided by the scales of source and target.
        values: Attributions; raw ones may be the file's own bytes, which must not be written to.
    """

    sources: tuple[Node, ...]
    targets: tuple[Node, ...]
    metric: AttrMetric
    normalized: bool
    values: Float[np.ndarray, "_target _source"]

    def frame(self) -> "polars.DataFrame":
        """A row for each edge that is not zero; raises a ConfigurationError if polars is not installed."""
        places = zip(*self.values.nonzero(), strict=True)
        return edge_frame(Edge(self.sources[s], self.targets[t], float(self.values[t, s])) for t, s in places)
