"""The page's questions, each answered in plain types."""

import json
from collections.abc import Callable
from typing import Any

from lit_attr.errors import ConfigurationError, EdgeNotFoundError, StorageError
from lit_attr.query.answer_json import plain
from lit_attr.storage.provenance import Provenance
from lit_attr.topology.words import METRICS, SIGNS, Direction
from lit_attr.view.drawing import subgraph
from lit_attr.view.parameters import Parameters
from lit_attr.view.viewed_result import ViewedResult

# As many as an index keeps of each list.
_MOST_ROWS = 64
_LONGEST_TEXT = 200


def about(harvest: ViewedResult, asked: Parameters) -> dict[str, Any]:
    """The result itself: where it is, what it is of, how much it covers."""
    explorer = harvest.explorer
    storage, tokens = explorer.storage, explorer.tokens
    return {
        "file": str(harvest.path),
        "size": harvest.size,
        "n_tokens": storage.n_tokens_processed,
        "ci_threshold": storage.ci_threshold,
        "layers": [{"layer": layer, "size": size} for layer, size in explorer.layers.items()],
        "partial": _partial(storage.recorded),
        "provenance": _plain_json(storage.provenance),
        "indexed": explorer.is_indexed,
        "tokenizer": None if tokens is None else str(tokens.file),
    }


def neighbours(harvest: ViewedResult, asked: Parameters) -> dict[str, Any]:
    """The strongest positive and negative sources and targets of a key; where there are none, why."""
    key, k = asked.text("key"), asked.whole("rows", _MOST_ROWS, 1, _MOST_ROWS)
    explorer = harvest.explorer
    known = explorer.reader.key(key)
    answer: dict[str, Any] = {"metric": asked.metric, "normalized": asked.normalized}
    ways: tuple[tuple[Direction, Callable[..., Any], bool], ...] = (
        ("sources", explorer.sources, explorer.key_edges.has_target(known)),
        ("targets", explorer.targets, explorer.key_edges.has_source(known)),
    )
    for name, ask, _ in ways:
        answer[name] = {"positive": [], "negative": [], "none": None, "n_not_harvested": 0}
        for sign in SIGNS:
            try:
                found = ask(key, k=k, sign=sign, **asked.measure, layers=asked.layers)
            except EdgeNotFoundError as error:
                if not any(is_one for *_, is_one in ways):
                    raise EdgeNotFoundError(str(error).removeprefix(f"no {name} of {key}: ")) from error
                answer[name]["none"] = str(error)
                continue
            answer[name][sign] = plain(found)["entries"]
            answer[name]["n_not_harvested"] = found.n_not_harvested
            answer["was_harvested"] = answer.get("was_harvested", True) and found.was_harvested
    return {"node": vars(explorer.node(known)), **answer}


def edge(harvest: ViewedResult, asked: Parameters) -> dict[str, Any]:
    """One edge, by every metric that it has."""
    answers = {}
    for metric in METRICS:
        try:
            found = plain(harvest.explorer.edge(asked.text("source"), asked.text("target"), metric=metric))
        except EdgeNotFoundError:
            if metric == METRICS[0]:
                raise
            continue
        answers[metric] = found
    return {"by_metric": answers}


def overview(harvest: ViewedResult, asked: Parameters) -> dict[str, Any]:
    """The edge mass between layers, unless summing it takes long and was not asked for."""
    if not (harvest.is_quick(asked.metric) or asked.flag("anyway")):
        return {"slow": True}
    return {"slow": False, **plain(harvest.matrix(asked.metric, asked.normalized))}


def pair(harvest: ViewedResult, asked: Parameters) -> dict[str, Any]:
    """The strongest edges between two layers, unless finding them takes long and was not asked for."""
    explorer = harvest.explorer
    source, target = explorer.layer_pair(asked.text("source"), asked.text("target"), metric=asked.metric)
    if not (harvest.is_quick(asked.metric, (source, target)) or asked.flag("anyway")):
        return {"slow": True}
    k = asked.whole("rows", _MOST_ROWS, 1, _MOST_ROWS)
    found: dict[str, Any] = {
        sign: plain(harvest.pair_edges(source, target, k, sign, asked.metric, asked.normalized))["edges"]
        for sign in SIGNS
    }
    return {"slow": False, "source": source, "target": target, **found}


def search(harvest: ViewedResult, asked: Parameters) -> dict[str, Any]:
    """Components and tokens by what someone types."""
    text = asked.text("text")
    if len(text) > _LONGEST_TEXT:
        raise ConfigurationError(f"text: expected {_LONGEST_TEXT} characters at most, found {len(text)}")
    return harvest.search.answer(text)


def _partial(provenance: Provenance) -> str | None:
    try:
        return provenance.partial
    except StorageError as error:  # what is in the result can be looked at all the same
        return f"unknown share of batches ({error})"


def _plain_json(provenance: object) -> Any:  # noqa: ANN401 - whatever someone wrote
    """A provenance with words for what JSON cannot hold: other tools may write others than ours."""
    return json.loads(json.dumps(provenance, default=str, skipkeys=True), parse_constant=str)


# What is answered without waiting for other questions: it takes its own locks.
UNLOCKED = ("overview", "pair")
QUESTIONS: dict[str, Callable[[ViewedResult, Parameters], dict[str, Any]]] = {
    "about": about,
    "search": search,
    "neighbours": neighbours,
    "subgraph": subgraph,
    "edge": edge,
    "overview": overview,
    "pair": pair,
}
