"""A component's top sources and targets as two panels of bars."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lit_attr.errors import ConfigurationError
from lit_attr.optional import require
from lit_attr.plots.labels import full_label
from lit_attr.plots.style import INK, NEGATIVE, PAGE_WIDTH, POSITIVE, WHISKER, new_figure
from lit_attr.query.answers import Neighbour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In inches: of a bar with its gap, and of everything else.
_BAR, _REST = 0.16, 0.85
_FEWEST_BARS = 4
# Opacity of a bar that may as well be zero.
_UNSURE = 0.35


def plot_component(
    name: str,
    sources: Sequence[Neighbour],
    targets: Sequence[Neighbour],
    value: str = "normalised attribution",
    n_not_harvested: int = 0,
) -> "Figure":
    """Bars of what feeds a component and of what it feeds; negative ones are hatched.

    Whiskers are 95 % intervals, where these are known. Bars are faint where zero lies within. Where a source occurred
    in too few groups of batches for an interval, the label says so.

    Args:
        name: Name of the component, or token.
        sources: Entries of either sign.
        targets: Entries of either sign.
        value: What the values are.
        n_not_harvested: How many components cannot appear among the targets, since they were no targets of the harvest.

    Returns:
        The figure; a panel without entries is left out.

    Raises:
        ConfigurationError: If there are no entries at all, or matplotlib is not installed.
    """
    panels = [(what, entries) for what, entries in (("sources", sources), ("targets", targets)) if entries]
    if not panels:
        raise ConfigurationError(
            f"no sources or targets of {name} were measured that are not zero: there is nothing to be plotted"
        )
    n_bars = max(len(sources), len(targets), _FEWEST_BARS)
    with new_figure(n_bars * _BAR + _REST, PAGE_WIDTH * len(panels) / 2) as figure:
        for axes, (what, entries) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _panel(axes, sorted(entries, key=lambda entry: entry.value), n_bars)
            axes.set_title(f"{what} of {name}")
            lacks_some = what == "targets" and n_not_harvested > 0
            axes.set_xlabel(f"{value}\nnot harvested, cannot appear: {n_not_harvested:,}" if lacks_some else value)
        patches = require("matplotlib.patches", "plot")
        handles: list[Any] = [
            patches.Patch(label=sign, **look_of(positive=sign == "positive")) for sign in ("positive", "negative")
        ]
        every = [*sources, *targets]
        if any(entry.interval is not None for entry in every):
            handles.append(require("matplotlib.lines", "plot").Line2D([], [], label="95 % interval", **WHISKER))
        if any(_is_unsure(entry) for entry in every):
            look = {**look_of(positive=True), "alpha": _UNSURE}
            handles.append(patches.Patch(label="zero lies within", **look))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        return figure


def _panel(axes: "Axes", entries: Sequence[Neighbour], n_bars: int) -> None:
    """Largest on top; both panels have room for as many bars, so that theirs are as wide."""
    axes.set_ylim(-0.6 - n_bars + len(entries), len(entries) - 0.4)
    for place, entry in enumerate(entries):
        look = look_of(positive=entry.value > 0)
        axes.barh(place, entry.value, height=0.75, **look, alpha=_UNSURE if _is_unsure(entry) else None)
        if entry.interval is not None:
            axes.plot(entry.interval, (place, place), marker="|", markersize=3.5, **WHISKER)
    names = [f"{full_label(entry)}{' (few)' if entry.few_groups else ''}" for entry in entries]
    axes.set_yticks(range(len(entries)), names)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.03)


def _is_unsure(entry: Neighbour) -> bool:
    """Whether zero lies within the interval of an entry."""
    return entry.interval is not None and entry.interval[0] <= 0 <= entry.interval[1]


def look_of(*, positive: bool) -> dict[str, Any]:
    """How the bars of a sign look, which are told apart by colour, by hatching, and by side."""
    if positive:
        return {"facecolor": POSITIVE, "edgecolor": INK, "linewidth": 0.4}
    return {"facecolor": NEGATIVE, "edgecolor": INK, "linewidth": 0.4, "hatch": "/////"}
