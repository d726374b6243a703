"""Places of nodes in a layered graph: rows by depth, with lanes in them for the edges that pass."""

import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lit_attr.errors import ConfigurationError
from lit_attr.plots.sideways import Segment, sideways
from lit_attr.topology.address import ComponentKey, in_order

# In inches, at 7 points: a character's width, what is around a label, its height, and the least gap to the next.
_CHARACTER, _PADDING, _HEIGHT, _GAP = 0.056, 0.07, 0.15, 0.06
# Nodes of a row are so far apart where there is room; an edge that passes has a lane.
_COMFORTABLE, _COMFORTABLE_UPRIGHT, _LANE = 0.55, 0.3, 0.09
# Between rows: the more nodes, the more, since edges that go far to the side need height; less on a page that is full.
_BETWEEN_ROWS, _PER_NODE, _MOST_BETWEEN, _LEAST_BETWEEN = 0.26, 0.03, 0.85, 0.12
_PAGE = 8.6
# Source, target and value.
DrawnEdge = tuple[ComponentKey, ComponentKey, float]


@dataclass(frozen=True)
class Place:
    """Place of a node, in inches.

    Attributes:
        x: Distance of the label's centre from the left.
        y: Distance of the label's centre from below.
        half_height: Half of the label's height.
        upright: Whether its text runs upwards.
    """

    x: float
    y: float
    half_height: float
    upright: bool


@dataclass(frozen=True)
class Layout:
    """Where everything is, in inches.

    Attributes:
        nodes: Places of all nodes.
        lanes: For every edge, where it passes the rows between its ends.
        rows: Layer to the middle of its row, from bottom to top.
        height: Height of the whole.
    """

    nodes: Mapping[ComponentKey, Place]
    lanes: Sequence[Sequence[tuple[float, float]]]
    rows: Mapping[str, float]
    height: float


def lay_out(edges: Sequence[DrawnEdge], labels: Mapping[ComponentKey, str], left: float, right: float) -> Layout:
    """Place the nodes of a graph; labels of a row that is too long for them are turned upright.

    Args:
        edges: Source, target and value.
        labels: Text of every node.
        left: Where rows begin.
        right: Where rows end.

    Raises:
        ConfigurationError: If a row has more nodes than fit.
    """
    layers = in_order({node.layer for node in labels})
    own = {layer: sorted((n for n in labels if n.layer == layer), key=lambda n: n.index) for layer in layers}
    widths: dict[Hashable, float] = {node: _width(label) + _GAP for node, label in labels.items()}
    halves = dict.fromkeys(labels, _HEIGHT / 2)
    upright = {layer for layer, nodes in own.items() if sum(widths[node] for node in nodes) > right - left}
    for node in (node for layer in upright for node in own[layer]):
        halves[node], widths[node] = (widths[node] - _GAP) / 2, _HEIGHT
    chains = [_chain(number, source, target, layers) for number, (source, target, _) in enumerate(edges)]
    rows: dict[str, list[Hashable]] = {layer: list(nodes) for layer, nodes in own.items()}
    for lane in (lane for chain in chains for lane in chain[1:-1]):
        rows[lane[1]].append(lane)
    for layer, nodes in own.items():
        _fill(layer, nodes, rows[layer][len(nodes) :], widths, right - left, upright=layer in upright)
    # Roots: a few strong edges shall not decide alone.
    weights = [abs(value) ** 0.5 for *_, value in edges]
    segments: list[Segment] = [(a, b, w) for chain, w in zip(chains, weights, strict=True) for a, b in pairwise(chain)]
    x = sideways(list(rows.values()), widths, segments, left, right)
    y, height = _upwards(own, halves)
    return Layout(
        {node: Place(x[node], y[node.layer], halves[node], node.layer in upright) for node in labels},
        [[(x[lane], y[lane[1]]) for lane in chain[1:-1]] for chain in chains],
        y,
        height,
    )


def _width(label: str) -> float:
    wide = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in label)
    return wide * _CHARACTER + _PADDING


def _chain(number: int, source: ComponentKey, target: ComponentKey, layers: Sequence[str]) -> list:
    """An edge's ends, and between them a lane in every row that it passes."""
    passed = layers[layers.index(source.layer) + 1 : layers.index(target.layer)]
    return [source, *((number, layer) for layer in passed), target]


def _fill(
    layer: str,
    nodes: Sequence[ComponentKey],
    lanes: Sequence[Hashable],
    widths: dict[Hashable, float],
    room: float,
    *,
    upright: bool,
) -> None:
    """Widen nodes, and give lanes their widths, as far as there is room."""
    free = room - sum(widths[node] for node in nodes)
    if free < 0:
        raise ConfigurationError(
            f"{len(nodes)} nodes of {layer} do not fit: expected at most {int(room / _HEIGHT)} in a layer; fewer keys, "
            "a smaller k or depth, or a higher threshold give fewer"
        )
    lane = min(_LANE, free / max(len(lanes), 1))
    widths |= dict.fromkeys(lanes, lane)
    more = (free - lane * len(lanes)) / len(nodes)
    comfortable = _COMFORTABLE_UPRIGHT if upright else _COMFORTABLE
    for node in nodes:
        widths[node] += min(more, max(comfortable - widths[node], widths[node] * 0.3))


def _upwards(
    own: Mapping[str, Sequence[ComponentKey]], halves: Mapping[ComponentKey, float]
) -> tuple[dict[str, float], float]:
    """The middles of rows, and the height of all."""
    half = [max(halves[node] for node in nodes) for nodes in own.values()]
    between = [min(_BETWEEN_ROWS + _PER_NODE * len(nodes), _MOST_BETWEEN) for nodes in own.values()]
    gaps = [0.0, *((one + other) / 2 for one, other in pairwise(between))]
    free = _PAGE - 2 * _GAP - 2 * sum(half)
    shrunk = max(min(free / max(sum(gaps), _GAP), 1.0), 0.0)
    middles, y = {}, _GAP
    for layer, gap, own_half in zip(own, gaps, half, strict=True):
        y += max(gap * shrunk, min(gap, _LEAST_BETWEEN)) + own_half
        middles[layer] = y
        y += own_half
    return middles, y + _GAP
