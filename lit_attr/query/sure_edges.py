"""The strongest of those edges that are sure: zero is not in their intervals.

Edges are taken in the order of their values, as an index or a list of strongest edges has them, until there are enough.
Where so many are not sure, the others will not be either: weaker ones than the first few thousand are not looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from lit_attr.query.estimates import Estimated
from lit_attr.query.found import Found
from lit_attr.topology.choice import Selection

Item = TypeVar("Item")
# So many are looked at first, as many as an index keeps; of the strongest ones nearly all are sure.
_FIRST = 64
# So many times more are looked at where these do not do, up to a tenth of a second's work.
_GROWTH = 8
MOST_LOOKED_AT = 4096


def sure_edges(
    ask: Callable[[Selection], Found[Item]],
    estimate: Callable[[Sequence[Item]], Sequence[Estimated]],
    selection: Selection,
) -> tuple[Found[Item], list[Item]]:
    """The strongest edges that are sure, best first, and the stronger ones that are not.

    Args:
        ask: Gives the strongest edges of a selection, sure or not.
        estimate: Says how sure edges are.
        selection: How many, of which sign, in which layers.
    """
    n = max(selection.k, _FIRST)
    while True:
        found = ask(replace(selection, k=n))
        sure, unsure = list[Item](), list[Item]()
        for entry, estimated in zip(found.entries, estimate(found.entries), strict=True):
            if len(sure) == selection.k:
                return Found(sure), unsure
            (sure if estimated.is_sure else unsure).append(entry)
        if len(sure) == selection.k:
            return Found(sure), unsure
        if len(found.entries) < n or n >= MOST_LOOKED_AT:
            return replace(found, entries=sure), unsure
        n = min(n * _GROWTH, MOST_LOOKED_AT)
