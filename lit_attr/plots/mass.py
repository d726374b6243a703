"""The edge mass between layers as a heat map."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from lit_attr.errors import ConfigurationError
from lit_attr.optional import require
from lit_attr.plots.style import FAINT, INK, PAGE_WIDTH, label_decades, new_figure
from lit_attr.topology.address import in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

# With more layers than this, blocks are labelled instead: labels would overlap.
_MOST_LABELS = 36
# From this ratio of the largest to the smallest mass, colours are logarithmic.
_LOGARITHMIC_FROM = 20.0
# In inches: the largest cell, and the room of labels and colour bar.
_CELL, _WIDTH_OF_LABELS, _HEIGHT_OF_LABELS = 0.27, 2.0, 1.1
# The colour of the lines of hatched cells.
_HATCH = "#999999"
# So many cells are drawn as an image, also where the rest of the picture is vectors.
_MANY_CELLS = 2500


def plot_mass(masses: Mapping[tuple[str, str], float | None], label: str = "edge mass") -> "Figure":
    """A heat map of the edges between layers: sources from left to right, targets from bottom to top, both by depth.

    Args:
        masses: Source and target layer to the sum of magnitudes of the edges between them; None if none of these edges
            was measured. Pairs without edges are missing.
        label: What the masses are, for the colour bar.

    Returns:
        The figure. Cells of pairs without edges are blank, those of pairs whose edges are all zero are grey, and those
        of pairs that were not measured are hatched.

    Raises:
        ConfigurationError: If there are no pairs, or matplotlib is not installed.
    """
    if not masses:
        raise ConfigurationError("no pair of layers has edges: there is no edge mass to be plotted")
    colors = require("matplotlib.colors", "plot")
    sources = in_order({source for source, _ in masses})
    targets = in_order({target for _, target in masses})
    table = _table(masses, sources, targets)
    cell = min(_CELL, (PAGE_WIDTH - _WIDTH_OF_LABELS) / len(sources))
    with new_figure(cell * len(targets) + _HEIGHT_OF_LABELS, cell * len(sources) + _WIDTH_OF_LABELS) as figure:
        axes, many = figure.subplots(), table.size > _MANY_CELLS
        zero, some = np.ma.masked_where(table != 0, table), np.ma.masked_where(~(table > 0), table)
        handles = []
        if zero.count():
            axes.pcolormesh(zero, cmap=colors.ListedColormap([FAINT]), rasterized=many)
            handles.append(require("matplotlib.patches", "plot").Patch(color=FAINT, label="all edges are zero"))
        if unmeasured := [pair for pair, mass in masses.items() if mass is None]:
            handles.append(
                _hatch(axes, [(sources.index(source), targets.index(target)) for source, target in unmeasured])
            )
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        _frame(axes, sources, targets)
        if some.count():
            low, high = some.min(), some.max()
            norm = colors.LogNorm(low, high) if high > low * _LOGARITHMIC_FROM else colors.Normalize(0, high)
            image = axes.pcolormesh(some, cmap="viridis_r", norm=norm, rasterized=many)
            bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, label=label)
            bar.outline.set_linewidth(0.6)
            if isinstance(norm, colors.LogNorm):
                label_decades(bar.ax.yaxis, high / low)
        return figure


def _table(
    masses: Mapping[tuple[str, str], float | None], sources: Sequence[str], targets: Sequence[str]
) -> Float[np.ndarray, "_target _source"]:
    """The masses that are numbers; not a number elsewhere."""
    table = np.full((len(targets), len(sources)), np.nan)
    for (source, target), mass in masses.items():
        if mass is not None:
            table[targets.index(target), sources.index(source)] = mass
    return table


def _hatch(axes: "Axes", cells: Sequence[tuple[int, int]]) -> "Patch":
    """Hatch cells, given by column and row, and return their entry of the legend."""
    patches, collections = require("matplotlib.patches", "plot"), require("matplotlib.collections", "plot")
    look = {"facecolor": "none", "edgecolor": _HATCH, "hatch": "//////", "linewidth": 0.0}
    axes.add_collection(collections.PatchCollection([patches.Rectangle(cell, 1, 1) for cell in cells], **look))
    return patches.Patch(label="not harvested", **look)


def _frame(axes: "Axes", sources: Sequence[str], targets: Sequence[str]) -> None:
    axes.set_aspect("equal")
    axes.set_xlim(0, len(sources))
    axes.set_ylim(0, len(targets))
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    axes.set_xlabel("source")
    axes.set_ylabel("target")
    _label(axes.xaxis, sources, beside=True)
    _label(axes.yaxis, targets, beside=False)
    if len(sources) <= _MOST_LABELS:
        axes.tick_params(axis="x", rotation=90)
    for draw, layers in ((axes.axvline, sources), (axes.axhline, targets)):
        for start in _block_starts(layers)[1:]:
            draw(start, color=INK, linewidth=0.3, alpha=0.5)


def _label(axis: "Axis", layers: Sequence[str], *, beside: bool) -> None:
    """Every layer, or every block where there are many; beside or above each other."""
    axis.set_tick_params(length=0)
    if len(layers) <= _MOST_LABELS:
        axis.set_ticks([place + 0.5 for place in range(len(layers))], layers)
        return
    starts = [*_block_starts(layers), len(layers)]
    names = [_block(layers[start]) for start in starts[:-1]]
    if beside:  # the embedding and the output are narrower than their names
        names = [name if name.isdecimal() else f"\n{name}" for name in names]
    axis.set_ticks([(one + other) / 2 for one, other in pairwise(starts)], names)
    matrices = list(dict.fromkeys(layer.partition(".")[2] for layer in layers if "." in layer))
    text = axis.get_label()
    text.set_text(f"{text.get_text()}, by block; in each: {', '.join(matrices)}")


def _block_starts(layers: Sequence[str]) -> list[int]:
    return [n for n, layer in enumerate(layers) if n == 0 or _block(layer) != _block(layers[n - 1])]


def _block(layer: str) -> str:
    """The number of its block; the embedding and the output are blocks of their own."""
    return layer.partition(".")[0]
