"""How all pictures look, and how they are saved."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_attr.errors import ConfigurationError
from lit_attr.files.output import Product, check_replaceable, write_file
from lit_attr.optional import require

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Width of a page's text in inches, as most journals have it; pictures fit without being scaled.
PAGE_WIDTH = 6.9
# Height of a note in inches.
_NOTE = 0.12
# Of the palette of Okabe and Ito, which is told apart with every kind of colour vision; also in grey: dark and light.
POSITIVE, NEGATIVE = "#0072B2", "#E69F00"
INK, FAINT = "#222222", "#DDDDDD"
# Of the line of an interval.
WHISKER: dict[str, Any] = {"color": INK, "linewidth": 0.8}
FORMATS = (".png", ".svg")
_DPI = 300
# Up to this ratio of the largest to the smallest value, not only powers of ten are labelled.
_FEW_DECADES = 1e3
_MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MARK = "lit_attr.picture"
_PRODUCTS = {
    ".png": Product("a PNG picture of lit-attr plot", b"\x89PNG", f"Source\0{_MARK}".encode()),
    ".svg": Product("an SVG picture of lit-attr plot", b"<?xml", f"<dc:source>{_MARK}<".encode()),
}
FONT = "DejaVu Sans"  # comes with matplotlib, and has most alphabets
_SETTINGS = {
    "font.family": FONT,
    **{"font.size": 7.5, "axes.titlesize": 8.5, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7},
    **{"legend.fontsize": 7, "figure.titlesize": 9},
    **{"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK},
    **{"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "hatch.linewidth": 0.7},
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False},
    "text.parse_math": False,  # a token may be a dollar sign
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lit_attr",  # the same picture is the same file
}


def power_of_ten(value: float, _: object = None) -> str:
    """The label of a tick at a power of ten, of either sign, or at zero; it can be a tick's formatter."""
    if value == 0:
        return "0"
    exponent = f"{np.log10(abs(value)):.0f}".translate(_SUPERSCRIPTS)
    return f"{_MINUS if value < 0 else ''}10{exponent}"


def label_decades(axis: "Axis", ratio: float, most: float = _FEW_DECADES) -> None:
    """Label the ticks of a logarithmic axis, which may be that of a colour bar.

    Args:
        axis: The axis.
        ratio: The largest value of it over the smallest.
        most: The ratio up to which not only powers of ten are labelled.

    Raises:
        ConfigurationError: If matplotlib is not installed.
    """
    ticker = require("matplotlib.ticker", "plot")
    if ratio <= most:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    else:
        axis.set_major_formatter(power_of_ten)
    axis.set_minor_formatter(ticker.NullFormatter())


@contextmanager
def new_figure(height: float, width: float = PAGE_WIDTH) -> Iterator["Figure"]:
    """A figure to draw into, in the style of all pictures; no global state is touched, and no window opened.

    Args:
        height: In inches.
        width: In inches.

    Raises:
        ConfigurationError: If matplotlib is not installed.
    """
    matplotlib, figures = require("matplotlib", "plot"), require("matplotlib.figure", "plot")
    with matplotlib.rc_context(_SETTINGS):
        figure = figures.Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.draw_without_rendering()  # ticks come into being when they are drawn, in the style of that moment


def add_notes(figure: "Figure", notes: Sequence[str]) -> None:
    """Write small lines into the upper corner of a picture, which becomes higher by them.

    Args:
        figure: The picture.
        notes: The lines; none leave the picture as it is.
    """
    if not notes:
        return
    width, height = figure.get_size_inches()
    share = height / (height + _NOTE * len(notes))
    figure.set_size_inches(width, height / share)
    engines = require("matplotlib.layout_engine", "plot")
    top: dict[str, float] = {}  # found by the layout, unless places are fixed
    if not isinstance(figure.get_layout_engine(), engines.ConstrainedLayoutEngine):
        top = {"y": 0.995}
        for axes in figure.axes:
            left, bottom, across, up = axes.get_position().bounds
            axes.set_position((left, bottom * share, across, up * share))
    figure.suptitle("\n".join(notes), x=0.995, ha="right", fontsize=6, **top)


def save(figure: "Figure", path: Path, *, overwrite: bool = False) -> Path:
    """Write a picture: PNG with 300 dots per inch, or SVG with text as text.

    Args:
        figure: The picture.
        path: Path of the file; its suffix decides.
        overwrite: Whether an earlier picture of this kind may be replaced.

    Returns:
        `path`.

    Raises:
        ConfigurationError: If the suffix is neither .png nor .svg.
        StorageError: If the file exists already, or cannot be written.
    """
    check_place(path, overwrite=overwrite)
    kind = path.suffix[1:]
    metadata: dict[str, Any] = {"Source": _MARK}
    if kind == "svg":
        metadata["Date"] = None  # without it, the same picture is the same file
    with require("matplotlib", "plot").rc_context(_SETTINGS):
        write_file(
            path,
            lambda file: figure.savefig(file, format=kind, dpi=_DPI, metadata=metadata),
            _PRODUCTS[path.suffix],
            overwrite=overwrite,
        )
    return path


def check_place(path: Path, *, overwrite: bool) -> None:
    """Check that a picture can be saved under a name.

    Args:
        path: Path of the file.
        overwrite: Whether an earlier picture of this kind may be replaced.

    Raises:
        ConfigurationError: If the suffix is neither .png nor .svg.
        StorageError: If something is there that may not be replaced.
    """
    if path.suffix not in FORMATS:
        raise ConfigurationError(f"a picture's name ends in {' or '.join(FORMATS)}, found {str(path)!r}")
    check_replaceable(path, _PRODUCTS[path.suffix], overwrite=overwrite)
