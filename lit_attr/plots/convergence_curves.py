"""How standard errors shrink, against tokens."""

from typing import TYPE_CHECKING

import numpy as np

from lit_attr.errors import ConfigurationError
from lit_attr.optional import require
from lit_attr.plots.convergence import LOOKS, Convergence
from lit_attr.plots.style import INK, NEGATIVE, POSITIVE, new_figure, power_of_ten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 3.4, 2.9
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
    ticker = require("matplotlib.ticker", "plot")
    with new_figure(_HEIGHT, _WIDTH) as figure:
        axes = figure.subplots()
        for kind, (n_tokens, medians) in found.curves.items():
            color, marker, line = _LOOKS[kind]
            axes.plot(
                n_tokens, medians, color=color, marker=marker, linestyle=line, linewidth=1, markersize=3.5, label=kind
            )
        first, last = min(point[0] for point in points), max(point[0] for point in points)
        start = max(point[1] for point in points if point[0] == first)
        root = np.array([first, last])
        axes.plot(root, start * (first / root) ** 0.5, color=INK, linewidth=0.6, linestyle=":", label="1 / √tokens")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            few_decades = axis is axes.yaxis or last < 10 * first
            axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
            axis.set_major_formatter(
                ticker.FuncFormatter(lambda value, _: f"{value:,g}") if few_decades else power_of_ten
            )
            axis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlabel("tokens")
        strongest = f"{found.k} strongest edges between every two layers"
        axes.set_ylabel(
            "standard error / value, median" + (f"\nof the {strongest}" if set(found.curves) - {LOOKS} else "")
        )
        figure.legend(loc="outside lower center", ncols=2)
        return figure
