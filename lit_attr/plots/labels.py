"""Texts of nodes in pictures."""

from functools import cache
from typing import Any

from lit_attr.optional import require
from lit_attr.plots.style import FONT
from lit_attr.query.answers import Node

_LONGEST = 18


def full_label(node: Node) -> str:
    """Layer and index, or layer and token where it is known."""
    return f"{node.layer}:{short_label(node)}"


def short_label(node: Node) -> str:
    """The index, or the token in quotes where it is known; what cannot be drawn is written as Python would."""
    text = node.token
    if text is None:
        return str(node.component_idx)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 1]}…"
    return f'"{"".join(_drawable(character) for character in text)}"'


def _drawable(character: str) -> str:
    if character.isprintable() and _font().get_char_index(ord(character)):
        return character
    return character.encode("unicode_escape").decode()


@cache
def _font() -> Any:  # noqa: ANN401 - of matplotlib
    fonts = require("matplotlib.font_manager", "plot")
    return fonts.get_font(fonts.findfont(FONT))
