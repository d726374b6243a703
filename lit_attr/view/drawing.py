"""The part of the graph that is drawn: the edges around some keys, and the walk that led there."""

from itertools import pairwise, permutations
from typing import Any

from lit_attr.errors import EdgeNotFoundError, KeyFormatError
from lit_attr.query.answer_json import plain
from lit_attr.query.answers import Edge, EdgeAnswer
from lit_attr.query.explorer import Explorer
from lit_attr.topology.words import SIGNS, AttrMetric
from lit_attr.view.parameters import Parameters
from lit_attr.view.viewed_result import ViewedResult

# More is neither answered at once nor looked at.
_MOST_KEPT, _MOST_BRANCHES, _DEEPEST, _MOST_EDGES = 24, 10, 2, 400


def subgraph(result: ViewedResult, parameters: Parameters) -> dict[str, Any]:
    """The strongest edges around some keys, and all edges between them and the steps of a walk.

    Parameters: `key`; `walk`, once or more, the keys before it, in their order; `pin`, once or more, keys whose edges
    are shown besides; `k`, `depth`, `threshold`, `sure`. Steps and pins that the result has not are left out, and
    named under `unknown`; edges between steps and pins that were not harvested have no value, and are named under
    `not_harvested`, and those that the result does not hold under `unheld`.
    """
    explorer, threshold = result.explorer, parameters.magnitude("threshold")
    key, unknown = str(explorer.reader.key(parameters.text("key"))), dict[str, str]()
    steps_before, pins = (_read(explorer, parameters.texts(name, _MOST_KEPT), unknown) for name in ("walk", "pin"))
    steps_before = [step for step in steps_before if step != key]
    walk = [*(step for step in steps_before if step not in unknown), key]
    graph = explorer.subgraph(
        list(dict.fromkeys([key, *(pin for pin in pins if pin not in unknown)])),
        k=parameters.whole("k", 3, 1, _MOST_BRANCHES),
        depth=parameters.whole("depth", 2, 1, _DEEPEST),
        threshold=threshold,
        sign=parameters.sign,
        **parameters.measure,
        layers=parameters.layers,
        sure=parameters.sure,
    )
    edges = {(e.source.component_key, e.target.component_key): e for e in graph.edges[:_MOST_EDGES]}
    kept = dict.fromkeys([*walk, *(node.component_key for node in graph.keys)])
    # Where a step is unknown, the one before it did not lead to the one behind it.
    steps = {step for one in pairwise([*steps_before, key]) for step in (one, one[::-1])}
    not_harvested: list[dict[str, Any]] = []
    unheld: list[dict[str, Any]] = []
    for ends in permutations(kept, 2):
        answer = None if ends in edges else _edge(explorer, *ends, parameters.metric)
        if answer is None:
            continue
        value = answer.normalized if parameters.normalized else answer.raw
        if value is None:
            lacking = not_harvested if answer.is_held else unheld
            lacking.append({"source": ends[0], "target": ends[1], "walked": ends in steps})
            continue
        estimated = answer.estimated(normalized=parameters.normalized)
        is_wanted = _is_shown(value, threshold, parameters) and (estimated.is_sure or not parameters.sure)
        # A step is shown in any case: it is how one came here.
        if value and (ends in steps or is_wanted):
            edges[ends] = Edge(answer.source, answer.target, value, **vars(estimated))
    nodes = dict.fromkeys(explorer.node(explorer.reader.key(key)) for key in kept)
    nodes |= dict.fromkeys(end for edge in edges.values() for end in (edge.source, edge.target))
    return {
        **plain(graph),
        "walk": steps_before,
        "pins": pins,
        "unknown": [{"key": text, "why": why} for text, why in unknown.items()],
        "nodes": [vars(node) for node in nodes],
        "edges": [{**plain(edge), "walked": ends in steps} for ends, edge in edges.items()],
        "not_harvested": not_harvested,
        "unheld": unheld,
        "n_left_out": len(graph.edges[_MOST_EDGES:]),
    }


def _read(explorer: Explorer, texts: list[str], unknown: dict[str, str]) -> list[str]:
    """Keys, canonical; those that the result has not as they are, and why it has them not into `unknown`."""
    keys = dict[str, None]()
    for text in texts:
        name, why = text, None
        try:
            key = explorer.reader.key(text)
            if not (explorer.has_source(key) or explorer.has_target(key)):
                why = explorer.why_unknown(key)
            name = str(key)
        except KeyFormatError as error:
            why = str(error)
        keys[name] = None
        if why is not None:
            unknown[name] = why
    return list(keys)


def _edge(explorer: Explorer, source: str, target: str, metric: AttrMetric) -> EdgeAnswer | None:
    try:
        return explorer.edge(source, target, metric=metric)
    except EdgeNotFoundError:
        return None


def _is_shown(value: float, threshold: float, parameters: Parameters) -> bool:
    return abs(value) >= threshold and parameters.sign in ("both", SIGNS[0] if value > 0 else SIGNS[1])
