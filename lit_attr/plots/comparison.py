"""Two results side by side: the edges that differ most, and the edge mass of layers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lit_attr.errors import ConfigurationError
from lit_attr.plots.component import look_of
from lit_attr.plots.labels import full_label
from lit_attr.plots.style import INK, PAGE_WIDTH, WHISKER, label_decades, new_figure
from lit_attr.query.compare_answers import ComparedEdge, Comparison, PairOfMasses
from lit_attr.storage.interval import t_quantile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In inches: of a bar with its gap, and of everything else.
_BAR, _REST = 0.16, 0.95
_FEWEST_BARS = 12
# Up to this ratio of masses, not only powers of ten are labelled: the panel is narrow.
_FEW_DECADES = 50


def plot_comparison(answer: Comparison) -> "Figure":
    """Differences of the listed edges, with 95 % intervals, and masses of pairs of layers in A and in B.

    Args:
        answer: The comparison.

    Raises:
        ConfigurationError: If no edge has mass in both, or matplotlib is not installed.
    """
    masses = [pair for pair in answer.masses if pair.mass_a > 0 and pair.mass_b > 0]
    if not masses:
        raise ConfigurationError("no two layers have edges in both results that are not zero: nothing can be plotted")
    n_bars = max(len(answer.edges), _FEWEST_BARS)
    with new_figure(n_bars * _BAR + _REST, PAGE_WIDTH if answer.edges else PAGE_WIDTH / 2) as figure:
        if answer.edges:
            left, right = figure.subplots(1, 2, width_ratios=(3, 2))
            _differences(left, answer.edges, n_bars)
            left.set_title(f"the {len(answer.edges)} edges with the largest {answer.sort}")
            left.set_xlabel(f"B - A, normalised {answer.metric}\n{_tested(answer)}")
        else:
            right = figure.subplots()
        _masses(right, masses)
        right.set_xlabel("in A" if answer.edges else f"in A\n{_tested(answer)}")
        return figure


def _tested(answer: Comparison) -> str:
    if answer.why_not_tested is not None:
        return "nothing was tested"
    return f"{answer.n_different:,} of {answer.n_tested:,} tested edges differ (q ≤ {answer.level:g})"


def _differences(axes: "Axes", edges: Sequence[ComparedEdge], n_bars: int) -> None:
    axes.set_ylim(-0.6 - n_bars + len(edges), len(edges) - 0.4)
    for place, edge in enumerate(reversed(edges)):
        axes.barh(place, edge.difference, height=0.75, **look_of(positive=edge.difference > 0))
        if edge.standard_error is not None and edge.df is not None:
            half = float(t_quantile(torch.tensor(edge.df))) * edge.standard_error
            ends = edge.difference - half, edge.difference + half
            axes.plot(ends, (place, place), marker="|", markersize=3.5, **WHISKER)
    names = [f"{full_label(edge.source)} → {full_label(edge.target)}" for edge in reversed(edges)]
    axes.set_yticks(range(len(edges)), names)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.03)


def _masses(axes: "Axes", masses: Sequence[PairOfMasses]) -> None:
    every = [mass for pair in masses for mass in (pair.mass_a, pair.mass_b)]
    ends = min(every) / 1.3, max(every) * 1.3
    axes.plot(ends, ends, color=INK, linewidth=0.6, linestyle=":")
    axes.scatter([pair.mass_a for pair in masses], [pair.mass_b for pair in masses], s=9, color=INK, alpha=0.7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_title(f"edge mass of {len(masses)} pairs of layers")
    for axis in (axes.xaxis, axes.yaxis):
        label_decades(axis, ends[1] / ends[0], _FEW_DECADES)
    axes.set_ylabel("in B")
