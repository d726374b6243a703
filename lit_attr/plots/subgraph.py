"""A part of the attribution graph, layer above layer."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lit_attr.errors import ConfigurationError
from lit_attr.optional import require
from lit_attr.plots.layered import DrawnEdge, Layout, lay_out
from lit_attr.plots.style import FAINT, INK, NEGATIVE, PAGE_WIDTH, POSITIVE, new_figure
from lit_attr.topology.address import ComponentKey

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In inches: where rows begin, behind the names of layers; the legend's height; what of an edge is above labels' rims.
_LEFT, _LEGEND, _STUB = 0.95, 0.35, 0.05
# In points: of the weakest and of the strongest edge.
_THINNEST, _THICKEST = 0.3, 3.2
_DASHES, _DOTS = (0, (3.0, 1.2)), (0, (1.0, 1.5))


def plot_subgraph(
    edges: Sequence[DrawnEdge],
    labels: Mapping[ComponentKey, str],
    keys: Collection[ComponentKey] = (),
    unmeasured: Collection[ComponentKey] = (),
    value: str = "normalised attribution",
) -> "Figure":
    """Nodes in rows, the embedding at the bottom and the output on top; edges go upwards, negative ones are dashed.

    Args:
        edges: Source, target and value.
        labels: Texts of all nodes; the layer is written beside its row.
        keys: Nodes to be set off, such as those around which the graph was drawn.
        unmeasured: Nodes whose sources were not harvested; they have a dotted rim.
        value: What the values are.

    Returns:
        The figure; widths are proportional to magnitudes, above a smallest one.

    Raises:
        ConfigurationError: If there are no edges, or matplotlib is not installed.
    """
    if not edges:
        raise ConfigurationError("the subgraph has no edges: a lower threshold, or other keys, may give some")
    layout = lay_out(edges, labels, _LEFT, PAGE_WIDTH)
    with new_figure(layout.height + _LEGEND) as figure:
        figure.set_layout_engine("none")
        share = _LEGEND / (layout.height + _LEGEND)
        axes = figure.add_axes((0, share, 1, 1 - share), xlim=(0, PAGE_WIDTH), ylim=(0, layout.height))
        axes.set_axis_off()
        _draw_rows(axes, layout)
        largest = max(abs(size) for *_, size in edges)
        _draw_edges(axes, edges, layout, largest)
        _draw_nodes(axes, labels, keys, unmeasured, layout)
        _draw_legend(axes, largest, value, has_unmeasured=any(node in layout.nodes for node in unmeasured))
        return figure


def _draw_rows(axes: "Axes", layout: Layout) -> None:
    for layer, y in layout.rows.items():
        axes.axhline(y, color=FAINT, linewidth=0.6, zorder=0, xmin=_LEFT / PAGE_WIDTH)
        axes.text(0.05, y, layer, ha="left", va="center", fontsize=7.5)


def _draw_nodes(
    axes: "Axes",
    labels: Mapping[ComponentKey, str],
    keys: Collection[ComponentKey],
    unmeasured: Collection[ComponentKey],
    layout: Layout,
) -> None:
    effects = require("matplotlib.patheffects", "plot")
    # A white rim shows which edges only pass behind; edges of the node itself have stubs above it.
    rim = [effects.withStroke(linewidth=3.5, foreground="white")]
    for node, place in layout.nodes.items():
        weight, width = ("bold", 1.4) if node in keys else ("normal", 0.5)
        style = _DOTS if node in unmeasured else "-"
        rim_line: dict[str, Any] = {"linewidth": width, "linestyle": style}
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": INK, **rim_line}
        text: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "rotation": 90 if place.upright else 0,
            "fontsize": 7,
            "weight": weight,
        }
        axes.text(place.x, place.y, labels[node], **text, bbox={**box, "path_effects": rim}, zorder=2)
        axes.text(place.x, place.y, labels[node], **text, bbox=box, zorder=4)


def _draw_edges(axes: "Axes", edges: Sequence[DrawnEdge], layout: Layout, largest: float) -> None:
    """Strong edges above weak ones; at both ends, a short piece is above the rims of labels."""
    paths, patches = require("matplotlib.path", "plot"), require("matplotlib.patches", "plot")
    move, line, curve = paths.Path.MOVETO, paths.Path.LINETO, paths.Path.CURVE4
    for (source, target, size), lanes in sorted(
        zip(edges, layout.lanes, strict=True), key=lambda pair: abs(pair[0][2])
    ):
        start, end, look = layout.nodes[source], layout.nodes[target], _look(size, largest)
        low, high = start.y + start.half_height, end.y - end.half_height
        through = [(start.x, low + _STUB), *lanes, (end.x, high - _STUB)]
        points, codes = [(start.x, low), through[0]], [move, line]
        for ((x0, y0), lean0), ((x1, y1), lean1) in pairwise(zip(through, _leans(through), strict=True)):
            half = (y1 - y0) / 2
            points += [(x0 + lean0 * half, y0 + half), (x1 - lean1 * half, y1 - half), (x1, y1)]
            codes += [curve] * 3
        path = paths.Path([*points, (end.x, high)], [*codes, line])
        axes.add_patch(patches.PathPatch(path, fill=False, zorder=1, **look))
        for place, stub in ((start, low + _STUB), (end, high - _STUB)):
            axes.plot([place.x] * 2, [place.y, stub], color=look["edgecolor"], linewidth=look["linewidth"], zorder=3)


def _leans(through: Sequence[tuple[float, float]]) -> list[float]:
    """How far a curve goes to the side, by its height, at every point: upright at its ends, and where it turns."""
    leans = [0.0]
    for (x0, y0), (x1, _), (x2, y2) in zip(through, through[1:], through[2:], strict=False):
        leans.append((x2 - x0) / (y2 - y0) if (x1 - x0) * (x2 - x1) > 0 else 0.0)
    return [*leans, 0.0]


def _look(size: float, largest: float) -> dict[str, Any]:
    """Told apart by colour and by dashes."""
    width = max(abs(size) / largest * _THICKEST, _THINNEST)
    look = {"edgecolor": POSITIVE if size > 0 else NEGATIVE, "linewidth": width}
    return look if size > 0 else {**look, "linestyle": _DASHES}


def _draw_legend(axes: "Axes", largest: float, value: str, *, has_unmeasured: bool) -> None:
    lines = require("matplotlib.lines", "plot")
    handles = []
    for name, size in (("positive", 1.0), ("negative", -1.0)):
        look = _look(size, 2.0)
        handles.append(lines.Line2D([], [], label=name, color=look.pop("edgecolor"), **look))
    for part in (1.0, 0.25):
        name = f"|{value}| = " if part == 1 else ""  # twice, the name would not fit
        label = f"{name}{largest * part:.2g}"
        handles.append(lines.Line2D([], [], color=INK, linewidth=part * _THICKEST, label=label))
    if has_unmeasured:
        rim = {"facecolor": "white", "edgecolor": INK, "linewidth": 0.5, "linestyle": _DOTS}
        handles.append(require("matplotlib.patches", "plot").Patch(label="sources not harvested", **rim))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(handles), handlelength=3.0)
