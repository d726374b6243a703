"""The part of the graph that is drawn: the edges around some keys, and the walk that led there."""

from itertools import pairwise, permutations
from typing import Any

from lit_attr.errors import EdgeNotFoundError, KeyFormatError
from lit_attr.query.answer_json import plain
from lit_attr.query.answers import Edge
from lit_attr.topology.words import SIGNS
from lit_attr.view.parameters import Parameters
from lit_attr.view.search import why_unknown
from lit_attr.view.viewed_result import ViewedResult

# More is neither answered at once nor looked at.
_MOST_KEPT, _MOST_BRANCHES, _DEEPEST, _MOST_EDGES = 24, 10, 2, 400


def subgraph(harvest: ViewedResult, asked: Parameters) -> dict[str, Any]:
    """The strongest edges around some keys, and all edges between them and the steps of a walk.

    Parameters: `key`; `walk`, once or more, the keys before it, in their order; `pin`, once or more, keys whose edges
    are shown besides; `k`, `depth`, `threshold`. Steps and pins that the result has not are left out, and said.
    """
    explorer, threshold = harvest.explorer, asked.magnitude("threshold")
    key, unknown = str(explorer.reader.key(asked.text("key"))), dict[str, str]()
    steps_before, pins = (_read(harvest, asked.texts(name, _MOST_KEPT), unknown) for name in ("walk", "pin"))
    steps_before = [step for step in steps_before if step != key]
    walk = [*(step for step in steps_before if step not in unknown), key]
    found = explorer.subgraph(
        list(dict.fromkeys([key, *(pin for pin in pins if pin not in unknown)])),
        k=asked.whole("k", 3, 1, _MOST_BRANCHES),
        depth=asked.whole("depth", 2, 1, _DEEPEST),
        threshold=threshold,
        sign=asked.sign,
        **asked.measure,
        layers=asked.layers,
    )
    edges = {(e.source.component_key, e.target.component_key): e for e in found.edges[:_MOST_EDGES]}
    kept = dict.fromkeys([*walk, *(node.component_key for node in found.keys)])
    # Where a step is unknown, the one before it did not lead to the one behind it.
    steps = {step for one in pairwise([*steps_before, key]) for step in (one, one[::-1])}
    for ends in permutations(kept, 2):
        edge = edges.get(ends) or _edge(harvest, *ends, asked)
        if edge is None or not edge.value:
            continue
        # A step is shown in any case: it is how one came here.
        is_shown = abs(edge.value) >= threshold and asked.sign in ("both", SIGNS[edge.value < 0])
        if is_shown or ends in steps:
            edges[ends] = edge
    nodes = dict.fromkeys(explorer.node(explorer.reader.key(key)) for key in kept)
    nodes |= dict.fromkeys(end for edge in edges.values() for end in (edge.source, edge.target))
    return {
        **plain(found),
        "walk": steps_before,
        "pins": pins,
        "unknown": [{"key": text, "why": why} for text, why in unknown.items()],
        "nodes": [vars(node) for node in nodes],
        "edges": [{**plain(edge), "walked": ends in steps} for ends, edge in edges.items()],
        "n_left_out": len(found.edges[_MOST_EDGES:]),
    }


def _read(harvest: ViewedResult, texts: list[str], unknown: dict[str, str]) -> list[str]:
    """Keys, canonical; those that the result has not as they are, and why it has them not into `unknown`."""
    explorer, found = harvest.explorer, dict[str, None]()
    for text in texts:
        name, why = text, None
        try:
            key = explorer.reader.key(text)
            if not (explorer.key_edges.has_source(key) or explorer.key_edges.has_target(key)):
                why = why_unknown(explorer.key_edges, key)
            name = str(key)
        except KeyFormatError as error:
            why = str(error)
        found[name] = None
        if why is not None:
            unknown[name] = why
    return list(found)


def _edge(harvest: ViewedResult, source: str, target: str, asked: Parameters) -> Edge | None:
    try:
        found = harvest.explorer.edge(source, target, metric=asked.metric)
    except EdgeNotFoundError:
        return None
    value = found.normalized if asked.normalized else found.raw
    if value is None:  # it was not measured, and what that is cannot be drawn
        return None
    return Edge(found.source, found.target, value)
