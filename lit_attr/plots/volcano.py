"""How sure edges are against how large they are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from lit_attr.errors import ConfigurationError
from lit_attr.optional import require
from lit_attr.plots.labels import full_label
from lit_attr.plots.style import INK, NEGATIVE, PAGE_WIDTH, POSITIVE, label_decades, new_figure
from lit_attr.plots.volcano_counts import VolcanoCounts
from lit_attr.query.answers import Edge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 3.3
# Where zero lies within the 95 % interval of a value with many groups.
_NOMINAL_Z = 1.96
# Values so much smaller than the largest are drawn as one column around zero.
_DECADES = 4


def plot_volcano(found: VolcanoCounts, strongest: Sequence[Edge], value: str) -> "Figure":
    """Numbers of edges by value, from left to right, and by |value| / standard error, upwards; both logarithmic.

    Args:
        found: The numbers.
        strongest: Edges with standard errors that are marked, and named beside the picture.
        value: What the values are.

    Raises:
        ConfigurationError: If there are no edges with an interval, or matplotlib is not installed.
    """
    if not found.counts.any():
        raise ConfigurationError("no edge that is not zero has an interval: there is nothing to be plotted")
    colors, transforms = require("matplotlib.colors", "plot"), require("matplotlib.transforms", "plot")
    with new_figure(_HEIGHT, PAGE_WIDTH) as figure:
        axes = figure.subplots()
        columns, cells = _columns(found)
        rows = np.flatnonzero(cells.any(1))
        last = rows[-1] + 1
        shown = np.ma.masked_equal(cells[:last], 0)
        norm = colors.LogNorm(1, max(shown.max(), 2))
        image = axes.pcolormesh(columns, found.zs[: last + 1], shown, cmap="Greys", norm=norm, rasterized=True)
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="number of edges")
        bar.outline.set_linewidth(0.6)
        axes.set_xscale("symlog", linthresh=columns[len(columns) // 2], linscale=0.5)
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis, bar.ax.yaxis):
            label_decades(axis, np.inf)
        axes.axhline(_NOMINAL_Z, color=INK, linewidth=0.6, linestyle=":")
        right = transforms.blended_transform_factory(axes.transAxes, axes.transData)
        axes.text(0.995, _NOMINAL_Z * 1.06, "z = 1.96", transform=right, ha="right", fontsize=6)
        _mark(axes, strongest, float(found.zs[last]))
        axes.set_xlabel(f"{value}\n{_caption(found)}")
        axes.set_ylabel("|value| / standard error")
        return figure


def _columns(found: VolcanoCounts) -> tuple[np.ndarray, Int[np.ndarray, "z column"]]:
    """Where columns begin and end, from negative values to positive ones, and their cells; one is around zero."""
    by_magnitude = np.flatnonzero(found.counts.sum((0, 1)))
    last = by_magnitude[-1] + 1
    per_decade = np.count_nonzero(found.magnitudes < found.magnitudes[0] * 9.99)
    first = max(by_magnitude[0] + 1, last - _DECADES * per_decade, 1)
    outer = found.magnitudes[first : last + 1]
    around_zero = found.counts[:, :, :first].sum((1, 2))
    negative, positive = (found.counts[:, sign, first:last] for sign in (0, 1))
    return (
        np.concatenate([-outer[::-1], outer]),
        np.concatenate([negative[:, ::-1], around_zero[:, None], positive], 1),
    )


def _mark(axes: "Axes", edges: Sequence[Edge], highest: float) -> None:
    """Points with numbers, and what they are in the legend."""
    for number, edge in enumerate(edges, start=1):
        z = min(abs(edge.value) / edge.standard_error, highest) if edge.standard_error else highest
        color = POSITIVE if edge.value > 0 else NEGATIVE
        name = f"{number}  {full_label(edge.source)} → {full_label(edge.target)}  {edge.value:+.3g}"
        axes.scatter([edge.value], [z], s=14, label=name, zorder=3, facecolors=color, edgecolors=INK, linewidths=0.4)
        axes.annotate(str(number), (edge.value, z), (3, 2), textcoords="offset points", fontsize=6)
    if edges:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.26), ncols=2, handletextpad=0.2)


def _caption(found: VolcanoCounts) -> str:
    n_edges = int(found.counts.sum())
    text = f"{n_edges:,} edges, {found.n_sure / n_edges:.0%} of them with an interval without zero"
    if found.n_few:
        text += f"; not drawn: {found.n_few:,} in too few groups"
    if found.share < 1:
        text += f"; of {found.share:.2g} of all, spread evenly"
    return text
