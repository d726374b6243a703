"""How sure the edges of answers are: standard errors, groups and intervals beside their values."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.query.strongest_edges import EdgeColumns, Edges
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.edge_errors import FEW, EdgeErrors
from lit_attr.storage.interval import half_width
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import AttrMetric

_Pair = tuple[ComponentKey, ComponentKey]


@dataclass(frozen=True)
class Estimated:
    """How sure a value is. All of it is None where the result has no standard errors, or the edge was not measured.

    Attributes:
        standard_error: How far the value would come out elsewhere on other batches, in its unit; None where that is not
            known, as where the source occurred in too few groups of batches.
        n_groups: The effective number of groups of batches in which the source occurred.
        few_groups: Whether these are too few for an interval.
        interval: Lower and upper end of the 95 % interval.
    """

    standard_error: float | None = field(default=None, kw_only=True)
    n_groups: float | None = field(default=None, kw_only=True)
    few_groups: bool | None = field(default=None, kw_only=True)
    interval: tuple[float, float] | None = field(default=None, kw_only=True)

    @property
    def is_sure(self) -> bool:
        """Whether there is an interval, and zero is not in it."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


class Estimator:
    """Says how sure edges are.

    Args:
        blocks: Blocks of the result.
        held: Gives the stored standard error of an edge, where the result holds its strongest edges alone.
    """

    def __init__(self, blocks: Blocks, held: Callable[[ComponentKey, ComponentKey, AttrMetric], float] | None) -> None:
        self._content, self._held = blocks.content, held
        self._errors = EdgeErrors.of(blocks)

    def of(
        self,
        edges: Sequence[_Pair],
        values: Sequence[float | None],
        measure: Measure,
        stored: Sequence[float | None] | None = None,
    ) -> list[Estimated]:
        """How sure some edges are.

        Args:
            edges: Source and target of each.
            values: Their values, in the measure; None for what was not measured, or is not held.
            measure: Which numbers.
            stored: Their stored standard errors, where they are known already.

        Raises:
            StorageError: If the result is damaged.
        """
        found = [Estimated()] * len(edges)
        if self._errors is None:
            return found
        by_layers: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
        for number, ((source, target), value) in enumerate(zip(edges, values, strict=True)):
            of_target = self._content.stored_targets(target.layer).place(target.index)
            if value is None or of_target is None:
                continue
            of_source = self._content.stored_sources(source.layer).place(source.index)
            if of_source is None:  # it never occurred
                found[number] = Estimated(n_groups=0.0, few_groups=True)
            else:
                by_layers.setdefault((source.layer, target.layer), []).append((number, of_source, of_target))
        for layers, places in by_layers.items():
            numbers, sources, targets = (torch.tensor(column) for column in zip(*places, strict=True))
            known = None
            if (held := self._held) is not None:
                of_lists = ((edges[n], stored[n] if stored else None) for n in numbers.tolist())
                known = torch.tensor(
                    [held(s, t, measure.metric) if error is None else error for (s, t), error in of_lists]
                )
            shown = torch.tensor([values[n] for n in numbers.tolist()], dtype=torch.float32)
            errors = self._errors.of_edges(*layers, measure, sources, targets, shown, known)
            n_groups = self._errors.n_groups(*layers, measure.metric, sources)
            for number, estimate in zip(numbers.tolist(), _estimates(shown, errors, n_groups), strict=True):
                found[number] = estimate
        return found

    def table(self, edges: Edges, metric: AttrMetric) -> Edges:
        """A table of edges, with how sure they are; as it is where the result has no standard errors."""
        if self._errors is None:
            return edges
        target = edges.target_layer
        targets = _places(self._content.stored_targets(target).ids, edges.targets)
        columns = np.full((3, len(edges.raw)), np.nan, np.float32)
        for number, source in enumerate(edges.source_layers):
            of_layer = np.flatnonzero(edges.source_places == number)
            if not len(of_layer):
                continue
            sources = _places(self._content.stored_sources(source).ids, edges.sources[of_layer])
            ends = sources, targets[of_layer]
            if edges.stored_errors is None:
                stored = self._errors.stored(source, target, metric, *ends)
            else:
                stored = torch.from_numpy(edges.stored_errors[of_layer])
            for column, values in enumerate((edges.raw, edges.normalized)):
                measure, shown = Measure(metric, normalized=bool(column)), torch.from_numpy(values[of_layer])
                errors = self._errors.of_edges(source, target, measure, *ends, shown, stored)
                columns[column, of_layer] = errors.numpy()
            columns[2, of_layer] = self._errors.n_groups(source, target, metric, sources).numpy()
        raw, normalized, n_groups = columns
        return replace(edges, estimates=EdgeColumns(raw, normalized, n_groups, n_groups < FEW))


def _estimates(
    values: Float[Tensor, " edge"], errors: Float[Tensor, " edge"], n_groups: Float[Tensor, " edge"]
) -> Iterator[Estimated]:
    """How sure values are, whose standard errors are not a number where there are too few groups."""
    columns = values, errors, n_groups, half_width(errors, n_groups)
    for value, error, n, half in zip(*(column.tolist() for column in columns), strict=True):
        if math.isnan(error):
            yield Estimated(n_groups=n, few_groups=n < FEW)
        else:
            interval = value - half, value + half
            yield Estimated(standard_error=error, n_groups=n, few_groups=False, interval=interval)


def _places(ids: Tensor | None, indices: np.ndarray) -> Tensor:
    places = torch.from_numpy(indices.astype(np.int64))
    return places if ids is None else torch.searchsorted(ids, places)
