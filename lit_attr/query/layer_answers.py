"""Answers about pairs of layers."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from lit_attr.query.answers import ENDS, Answer, Node, SureAnswer, ends
from lit_attr.query.frames import to_frame
from lit_attr.topology.words import AttrMetric, Statistic

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True)
class PairStatistic:
    """How much one layer influences another.

    Attributes:
        source_layer: What feeds.
        target_layer: What is fed.
        value: The mass, or mean; None if no edge between the layers was measured.
        harvested: The share of their edges that was measured.
    """

    source_layer: str
    target_layer: str
    value: float | None
    harvested: float


@dataclass(frozen=True)
class LayerMatrix(Answer):
    """How much the layers influence each other.

    Attributes:
        metric: `attr` or `attr_abs`.
        statistic: `mass`, the sum of the absolute values of all measured edges between two layers, or `mean`, that sum
            divided by their number.
        normalized: Whether values are divided by the scales of source and target.
        sources: Layers, in the order of the columns.
        targets: Layers, in the order of the rows.
        values: A number for each target and source; None where the source does not feed the target, and where no edge
            between them was measured.
        harvested: The share of the edges between each target and source that was measured, from 0 to 1: those to
            components that were targets of the harvest. None where the source does not feed the target.
    """

    metric: AttrMetric
    statistic: Statistic
    normalized: bool
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    harvested: tuple[tuple[float | None, ...], ...]

    @property
    def pairs(self) -> list[PairStatistic]:
        """All pairs of layers with edges, target by target."""
        return [
            PairStatistic(source, target, value, share)
            for target, values, shares in zip(self.targets, self.values, self.harvested, strict=True)
            for source, value, share in zip(self.sources, values, shares, strict=True)
            if share is not None
        ]

    def frame(self) -> "polars.DataFrame":
        """A row for each pair of layers with edges; raises a ConfigurationError if polars is not installed."""
        columns = {"source_layer": str, "target_layer": str, "value": float, "harvested": float}
        return to_frame([vars(pair) for pair in self.pairs], columns)


@dataclass(frozen=True, eq=False)
class LayerBlock(SureAnswer):
    """All edges between two layers.

    Attributes:
        sources: What the columns are.
        targets: What the rows are.
        metric: `attr` or `attr_abs`.
        normalized: Whether values are divided by the scales of source and target.
        n_not_harvested: How many rows were not measured, since their components were no targets of the harvest.
        values: Attributions; rows that were not measured are NaN. Raw ones may be the file's own bytes, which must not
            be written to.
        standard_error: Standard errors of the values, see `Estimated`; not a number where they are not known. None
            without standard errors, and where there are too many edges to compute them at once.
        n_groups: The effective number of groups of batches in which each source occurred; None likewise.
    """

    sources: tuple[Node, ...]
    targets: tuple[Node, ...]
    metric: AttrMetric
    normalized: bool
    n_not_harvested: int
    values: Float[np.ndarray, "_target _source"]
    standard_error: Float[np.ndarray, "_target _source"] | None = field(default=None, kw_only=True)
    n_groups: Float[np.ndarray, " _source"] | None = field(default=None, kw_only=True)

    def frame(self) -> "polars.DataFrame":
        """A row for each edge that is not zero, those that were not measured included, with no value.

        Raises:
            ConfigurationError: If polars is not installed.
        """
        rows: list[dict[str, Any]] = []
        for place, source in zip(*self.values.nonzero(), strict=True):  # what is not a number is not zero
            target = self.targets[place]
            value = float(self.values[place, source]) if target.was_harvested else None
            error = math.nan if self.standard_error is None else float(self.standard_error[place, source])
            n_groups = None if self.n_groups is None or value is None else float(self.n_groups[source])
            how_sure = {"standard_error": None if math.isnan(error) else error, "n_groups": n_groups}
            marks = {"value": value, "was_harvested": target.was_harvested, **how_sure}
            rows.append({**ends(self.sources[source], target), **marks})
        columns = {"value": float, "was_harvested": bool, "standard_error": float, "n_groups": float}
        return to_frame(rows, {**ENDS, **columns})
