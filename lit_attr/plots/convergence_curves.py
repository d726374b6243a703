"""How standard errors shrink, against tokens."""

from typing import TYPE_CHECKING, Any

import numpy as np

from lit_attr.errors import ConfigurationError
from lit_attr.plots.convergence import LOOKS, Convergence
from lit_attr.plots.style import INK, NEGATIVE, POSITIVE, label_decades, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 3.4, 2.9
# Up to this ratio of the largest to the smallest number of tokens, not only powers of ten are labelled.
_FEW_DECADES = 50
# Told apart by mark and line as well as by colour.
_LOOKS = {
    "component to component": (POSITIVE, "o", "-"),
    "token to component": (NEGATIVE, "s", "-"),
    "component to token": (POSITIVE, "^", "--"),
    "token to token": (NEGATIVE, "D", "--"),
    LOOKS: (INK, "x", "-"),
}


def plot_convergence(found: Convergence) -> "Figure":
    """Medians of standard error over value, by kind of edges, and how they would shrink with the root of the tokens.

    Args:
        found: What `convergence` gives.

    Raises:
        ConfigurationError: If no median is known, or matplotlib is not installed.
    """
    points = [point for curve in found.curves.values() for point in zip(*curve, strict=True) if np.isfinite(point[1])]
    if not points:
        raise ConfigurationError("not half of the strongest edges have a standard error after any part")
    with new_figure(_HEIGHT, _WIDTH) as figure:
        axes = figure.subplots()
        for kind, curve in found.curves.items():
            color, marker, line = _LOOKS[kind]
            look: dict[str, Any] = {"color": color, "marker": marker, "linestyle": line, "linewidth": 1}
            axes.plot(*curve, **look, markersize=3.5, label=kind)
        first, last = min(point[0] for point in points), max(point[0] for point in points)
        start = max(point[1] for point in points if point[0] == first)
        root = np.array([first, last])
        axes.plot(root, start * (first / root) ** 0.5, color=INK, linewidth=0.6, linestyle=":", label="1 / √tokens")
        axes.set_xscale("log")
        axes.set_yscale("log")
        errors = [point[1] for point in points]
        label_decades(axes.xaxis, last / first, _FEW_DECADES)
        label_decades(axes.yaxis, max(errors) / min(errors))
        has_kinds = bool(set(found.curves) - {LOOKS})
        axes.set_xlabel(f"tokens\n(by kind: {found.k} strongest edges of every two layers)" if has_kinds else "tokens")
        axes.set_ylabel("standard error / value, median")
        figure.legend(loc="outside lower center", ncols=2)
        return figure
