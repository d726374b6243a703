"""Comparing two results, edge by edge: which edges differ, by how much, and how sure that is.

All edges are walked over two to five times, tile by tile: p values are counted, then discoveries listed. See
`lit_attr.query.false_discoveries`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.query.compare_answers import COMPARE_ORDERS, ComparedEdge, CompareOrder, Comparison, PairOfMasses
from lit_attr.query.correlation import Correlation
from lit_attr.query.correspondence import Match, check_correspondence, why_not_tested
from lit_attr.query.explorer import Explorer
from lit_attr.query.false_discoveries import Discoveries, PValues
from lit_attr.query.paired_tiles import PairedResults, PairedTile
from lit_attr.storage.student_t import tail
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import check_count
from lit_attr.topology.words import AttrMetric

_Pair = tuple[str, str]


@dataclass
class _Counts:
    """What is counted of the edges between two layers."""

    masses: list[float] = field(default_factory=lambda: [0.0, 0.0])
    n_tested: int = 0
    n_few: int = 0
    n_constant: int = 0
    n_nominal: int = 0
    n_different: int = 0


class _Test:
    """Welch's test of the edges of a tile.

    Args:
        tile: The edges, with standard errors.
        level: Larger p values are not computed.
    """

    def __init__(self, tile: PairedTile, level: float) -> None:
        one, other = (errors.square() for errors in tile.errors or ())
        self.differences = tile.values[1] - tile.values[0]
        variances = one + other
        self.are_few = variances.isnan()
        self.are_tested = variances > 0
        self.errors = variances.sqrt()
        self.z = self.differences / self.errors
        # The normal tail is the lighter one: where it is above the level, so is that of Student's t.
        self.may_differ = self.are_tested & (torch.erfc(self.z.abs() / math.sqrt(2)) <= level)
        of_one, of_other = (
            (squares.square() / (groups - 1))[self.may_differ]
            for squares, groups in zip((one, other), tile.n_groups or (), strict=True)
        )
        self.df = variances[self.may_differ].square() / (of_one + of_other)
        self.p = tail(self.z[self.may_differ], self.df)

    def different(self, threshold: float) -> Bool[Tensor, " candidate"]:
        """Which of the edges that may differ do."""
        return self.p <= threshold


class _Best:
    """Columns of numbers, of which those of the largest magnitudes are kept.

    Args:
        k: How many.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._kept: list[Float64[Tensor, "column some"]] = []

    def add(self, columns: Float64[Tensor, "column some"], ranked: int) -> None:
        """See some more, ranked by one of the columns."""
        both = torch.cat([*self._kept, columns], 1)
        order = both[ranked].abs().sort(descending=True, stable=True).indices[: self._k]
        self._kept = [both[:, order]]

    @property
    def rows(self) -> list[list[float]]:
        """The rows that are kept, best first."""
        return self._kept[0].T.tolist() if self._kept else []


def compare(
    one: Explorer,
    other: Explorer,
    *,
    metric: AttrMetric = "attr",
    k: int = 20,
    level: float = 0.05,
    sort: CompareOrder = "difference",
    match: Match | None = None,
    layers: Sequence[str] = (),
    sources: Sequence[str] = (),
    targets: Sequence[str] = (),
) -> Comparison:
    """Compare the normalised values of two results, A and B.

    A target's root mean square differs between them. So that this is no difference of its edges, the values of both are
    divided by one: that over the data of both together.

    Args:
        one: A.
        other: B.
        metric: `attr` or `attr_abs`.
        k: How many edges are listed at most.
        level: The false discovery rate q that is allowed, above 0 and below 1.
        sort: By what edges are ranked: `difference`, or `z`, the difference in standard errors.
        match: `index` to take components and token ids of one index for the same, whatever is recorded of them.
        layers: Layers, or patterns: edges take part that have one of these at either end; all if none are given.
        sources: Layers of sources, likewise.
        targets: Layers of targets, likewise.

    Raises:
        ConfigurationError: If components do not correspond, an option is not understood, or the metric was not
            harvested in both.
        NotHeldError: If a result holds its strongest edges alone.
        StorageError: If a value is not finite.
    """
    check_count("k", k)
    if sort not in COMPARE_ORDERS:
        raise ConfigurationError(f"sort must be one of {list(COMPARE_ORDERS)}, found {sort!r}")
    if not 0 < level < 1:
        raise ConfigurationError(f"the level q must be above 0 and below 1, found {level}")
    check_correspondence(one, other, match)
    pairs = _pairs(one, other, metric, layers, sources, targets)
    reason = why_not_tested(one, other)
    if reason is not None and sort == "z":
        raise ConfigurationError(f"nothing can be sorted by z: {reason}")
    return _Comparing(one, other, metric, pairs, level).answer(k, sort, reason)


def _pairs(
    one: Explorer,
    other: Explorer,
    metric: AttrMetric,
    layers: Sequence[str],
    sources: Sequence[str],
    targets: Sequence[str],
) -> list[_Pair]:
    """The pairs of layers that are compared."""
    pairs, others = (explorer.layer_pairs(metric=metric) for explorer in (one, other))
    if differing := set(pairs) ^ set(others):
        source, target = min(differing)
        raise ConfigurationError(
            f"cannot compare {other.path} with {one.path}: expected edges between the same layers, found "
            f"{len(differing)} pairs that only one has, such as {source} to {target}"
        )
    either, first, last = (one.reader.matching(patterns) for patterns in (layers, sources, targets))
    wanted = [
        (source, target)
        for source, target in pairs
        if (either is None or source in either or target in either)
        and (first is None or source in first)
        and (last is None or target in last)
    ]
    if not wanted:
        raise ConfigurationError(f"there are no {metric} edges between the layers that were asked for")
    return wanted


class _Comparing:
    """The passes over all edges of two results."""

    def __init__(self, one: Explorer, other: Explorer, metric: AttrMetric, pairs: list[_Pair], level: float) -> None:
        self._node = one.node
        self._results = PairedResults(one, other, metric)
        self._metric = metric
        self._level = level
        self._counts = {pair: _Counts() for pair in pairs}
        self._all, self._tested = Correlation(), Correlation()

    def answer(self, k: int, sort: CompareOrder, reason: str | None) -> Comparison:
        """Do them, and say what came out."""
        found = None
        if reason is None:
            seen = PValues()
            self._walk(lambda tile: self._survey(tile, seen))
            found = Discoveries.find(seen, self._total("n_tested"), self._level, self._see)
        else:
            self._walk(self._sum, with_errors=False)
        best = _Best(k)
        self._walk(lambda tile: self._list(tile, best, sort, found), with_errors=found is not None)
        numbers = [self._results.n_edges(pair) for pair in self._counts]
        n_compared, n_in_a_only, n_in_b_only = (sum(number[i] for number in numbers) for i in range(3))
        return Comparison(
            metric=self._metric,
            sort=sort,
            level=self._level,
            n_compared=n_compared,
            n_in_a_only=n_in_a_only,
            n_in_b_only=n_in_b_only,
            why_not_tested=reason,
            n_tested=self._total("n_tested"),
            n_few=self._total("n_few"),
            n_constant=self._total("n_constant"),
            n_nominal=self._total("n_nominal"),
            n_different=self._total("n_different"),
            correlation=self._all.pearson,
            correlation_without_noise=None if found is None else self._tested.without_noise,
            rank_correlation=self._all.spearman,
            masses=tuple(
                PairOfMasses(
                    *pair, counts.masses[0], counts.masses[1], n_edges[0], None if found is None else counts.n_different
                )
                for (pair, counts), n_edges in zip(self._counts.items(), numbers, strict=True)
            ),
            edges=tuple(self._edge(row, found) for row in best.rows),
        )

    def _total(self, name: str) -> int:
        return sum(getattr(counts, name) for counts in self._counts.values())

    def _walk(self, see: Callable[[PairedTile], None], *, with_errors: bool = True) -> None:
        for tile in self._results.tiles(list(self._counts), with_errors=with_errors):
            see(tile)

    def _see(self, seen: PValues) -> None:
        self._walk(lambda tile: seen.add(_Test(tile, self._level).p))

    def _sum(self, tile: PairedTile) -> None:
        """What needs no standard errors."""
        counts = self._counts[tile.pair]
        counts.masses = [mass + float(v.abs().sum()) for mass, v in zip(counts.masses, tile.values, strict=True)]
        self._all.add(torch.stack([values.flatten() for values in tile.values]))

    def _survey(self, tile: PairedTile, seen: PValues) -> None:
        self._sum(tile)
        counts, test = self._counts[tile.pair], _Test(tile, self._level)
        counts.n_few += int(test.are_few.sum())
        counts.n_tested += int(test.are_tested.sum())
        counts.n_constant += int((~test.are_few & ~test.are_tested).sum())
        counts.n_nominal += int(test.different(self._level).sum())
        seen.add(test.p)
        values, errors = (
            torch.stack([numbers[test.are_tested] for numbers in both]) for both in (tile.values, tile.errors or ())
        )
        self._tested.add(values)
        self._tested.add_noise(errors)

    def _list(self, tile: PairedTile, best: _Best, sort: CompareOrder, found: Discoveries | None) -> None:
        one, other = tile.values
        self._all.add_ranks(torch.stack([one.flatten(), other.flatten()]))
        shown = one != other
        numbers: list[Tensor] = []
        if found is not None:
            test = _Test(tile, self._level)
            different = test.different(-1.0 if found.threshold is None else found.threshold)
            shown = test.may_differ.masked_scatter(test.may_differ, different)
            self._counts[tile.pair].n_different += int(shown.sum())
            numbers = [test.errors[shown], test.z[shown], test.df[different], test.p[different]]
        rows, columns = shown.nonzero().unbind(1)
        if not len(rows):
            return
        pair = torch.full((len(rows),), list(self._counts).index(tile.pair))
        values = one[shown], other[shown]
        ends = pair, tile.sources[columns], tile.targets[rows]
        table = torch.stack([*(end.double() for end in ends), *values, values[1] - values[0], *numbers])
        best.add(table, 7 if sort == "z" else 5)

    def _edge(self, row: list[float], found: Discoveries | None) -> ComparedEdge:
        pair, source, target, *numbers = row
        ends = zip(list(self._counts)[int(pair)], (source, target), strict=True)
        first, last = (self._node(ComponentKey(layer, int(index))) for layer, index in ends)
        if found is not None:
            numbers.append(float(found.q_values(torch.tensor([numbers[-1]], dtype=torch.float64))))
        return ComparedEdge(first, last, *numbers)
