"""Where the nodes of a layered graph are from left to right: near their neighbours, and apart from each other."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

# So often is every row moved; at last towards both sides, so that rows agree.
_SWEEPS, _LAST = 24, 4
# Source, target and weight; between nodes of different rows.
Segment = tuple[Hashable, Hashable, float]


def sideways(
    rows: Sequence[list[Hashable]],
    widths: Mapping[Hashable, float],
    segments: Sequence[Segment],
    left: float,
    right: float,
) -> dict[Hashable, float]:
    """Move every node towards its neighbours, row by row, upwards and downwards in turn.

    Args:
        rows: Nodes, from the lowest row to the highest.
        widths: Widths of the nodes.
        segments: Edges between rows.
        left: Where rows begin.
        right: Where rows end.

    Returns:
        The middles of the nodes. No two of a row overlap, where they fit.
    """
    below: dict[Hashable, list[tuple[Hashable, float]]] = {}
    above: dict[Hashable, list[tuple[Hashable, float]]] = {}
    for source, target, weight in segments:
        below.setdefault(target, []).append((source, weight))
        above.setdefault(source, []).append((target, weight))
    x: dict[Hashable, float] = {}
    for nodes in rows:
        x |= zip(nodes, np.linspace(left, right, len(nodes) + 2)[1:-1].tolist(), strict=True)
    for sweep in range(_SWEEPS):
        upwards = sweep % 2 == 0
        sides = (below, above) if sweep >= _SWEEPS - _LAST else (below,) if upwards else (above,)
        for nodes in rows if upwards else reversed(rows):
            wanted = {n: _mean([pair for side in sides for pair in side.get(n, ())], x, x[n]) for n in nodes}
            nodes.sort(key=lambda node, wanted=wanted: (wanted[node], x[node]))  # type: ignore[misc]
            places = np.array([wanted[node] for node in nodes])
            x |= zip(nodes, apart(places, np.array([widths[n] for n in nodes]), left, right).tolist(), strict=True)
    return x


def _mean(neighbours: Sequence[tuple[Hashable, float]], x: Mapping[Hashable, float], otherwise: float) -> float:
    total = sum(weight for _, weight in neighbours)
    return sum(x[node] * weight for node, weight in neighbours) / total if total else otherwise


def apart(
    wanted: Float[np.ndarray, " node"], widths: Float[np.ndarray, " node"], left: float, right: float
) -> Float[np.ndarray, " node"]:
    """The places nearest to wanted ones, in the same order, at which nothing overlaps: an isotonic regression.

    Args:
        wanted: Middles.
        widths: Widths of what is placed.
        left: Where the first may begin.
        right: Where the last may end.
    """
    offsets = np.cumsum(widths) - widths / 2
    blocks: list[tuple[float, int]] = []  # mean and length
    for value in (wanted - offsets).tolist():
        mean, length = value, 1
        while blocks and blocks[-1][0] > mean:
            other, more = blocks.pop()
            mean, length = (mean * length + other * more) / (length + more), length + more
        blocks.append((mean, length))
    moved = np.concatenate([np.full(length, mean) for mean, length in blocks])
    return moved.clip(left, max(right - widths.sum(), left)) + offsets
