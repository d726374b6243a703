"""The strongest values of rows; of equal ones, those that stand first: an answer has one order, however it is found."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_attr.topology.words import AnySign

# What stands at some places of a row, of which the number is given, too.
PositionsIn = Callable[[int, Int[Tensor, " entry"]], Int[Tensor, " entry"]]


def top_k(
    values: Float[Tensor, "*row entry"], k: int, sign: AnySign, positions: PositionsIn | None = None
) -> tuple[Float[Tensor, "*row _best"], Int[Tensor, "*row _best"]]:
    """The strongest values of each row, best first, and their places; where too few have the sign, others follow.

    Args:
        values: Finite values.
        k: How many of a row at most.
        sign: Which end; `both` ranks by magnitude.
        positions: Gives the positions by which equal values are ordered; they are their places, if None.
    """
    rows = values if values.ndim == 2 else values[None]
    ranked = rows.abs() if sign == "both" else rows
    # One more than is wanted: it shows whether the last one has equals.
    best, places = ranked.topk(min(k + 1, ranked.shape[-1]), largest=sign != "negative")
    is_equal = (best[:, 1:] == best[:, :-1]) & (best[:, 1:] != 0)
    for row in is_equal.any(1).nonzero()[:, 0].tolist():
        cut = best.shape[1] > k and bool(is_equal[row, k - 1])
        candidates = _with_equals(ranked[row], best[row], places[row]) if cut else places[row]
        ordered = _in_order(
            ranked[row, candidates], candidates if positions is None else positions(row, candidates), sign
        )
        places[row] = candidates[ordered[: best.shape[1]]]
    places = places[:, :k]
    best = rows.gather(-1, places)
    return (best, places) if values.ndim == 2 else (best[0], places[0])


def _with_equals(
    ranked: Float[Tensor, " entry"], best: Float[Tensor, " best"], places: Int[Tensor, " best"]
) -> Int[Tensor, " candidate"]:
    """The places of the best of a row, and of all that equal the last one."""
    return torch.cat((places[best != best[-1]], (ranked == best[-1]).nonzero()[:, 0]))


def _in_order(
    ranked: Float[Tensor, " entry"], positions: Int[Tensor, " entry"], sign: AnySign
) -> Int[Tensor, " entry"]:
    """The order of some values: best first, and of equal ones the lowest position first."""
    by_position = positions.argsort()
    return by_position[ranked[by_position].sort(stable=True, descending=sign != "negative").indices]


def has_sign(values: Float[Tensor, "..."], sign: AnySign) -> Bool[Tensor, "..."]:
    """Which values have a sign; zero has none."""
    return values > 0 if sign == "positive" else values < 0 if sign == "negative" else values != 0
