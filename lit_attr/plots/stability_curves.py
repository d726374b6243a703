"""How fast the strongest sources settle, against batches."""

from typing import TYPE_CHECKING

from lit_attr.plots.stability import Stability
from lit_attr.plots.style import INK, POSITIVE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 3.4, 2.5
_PALE = "#AAAAAA"


def plot_stability(found: Stability) -> "Figure":
    """The overlap of the strongest sources so far with those in the end: every target, and their mean.

    Args:
        found: What `stability` gives.

    Raises:
        ConfigurationError: If matplotlib is not installed.
    """
    mean = found.overlap.mean(1).tolist()
    with new_figure(_HEIGHT, _WIDTH) as figure:
        axes = figure.subplots()
        for number, values in enumerate(found.overlap.T.tolist()):
            label = f"each of {len(found.targets)} targets" if number == 0 else None
            axes.plot(found.n_batches, values, color=_PALE, linewidth=0.6, label=label)
        axes.plot(found.n_batches, mean, "o-", color=POSITIVE, linewidth=1.4, markersize=3, label="mean")
        axes.set_ylim(0, 1.03)
        axes.set_xlim(0, found.n_batches[-1] * 1.03)
        axes.axhline(1, color=INK, linewidth=0.4, linestyle=":")
        axes.set_xlabel(f"batches (of {found.n_tokens[-1] / found.n_batches[-1]:,.0f} tokens)")
        done = found.n_batches[-1]
        all_of = f"all {done} batches" if done == found.n_planned else f"{done} of {found.n_planned} batches"
        axes.set_ylabel(f"Jaccard index of the top {found.k} sources\nwith those of {all_of}")
        axes.legend(loc="lower right")
        return figure
