"""The page's questions, each answered in plain types."""

import json
from collections.abc import Callable
from typing import Any

from lit_attr.errors import ConfigurationError, EdgeNotFoundError, StorageError
from lit_attr.query.answer_json import plain
from lit_attr.query.answers import Ranking
from lit_attr.query.explorer import Explorer
from lit_attr.query.sure_edges import MOST_LOOKED_AT
from lit_attr.storage.edge_errors import FEW
from lit_attr.storage.file_content import Content
from lit_attr.storage.provenance import Provenance
from lit_attr.storage.standard_errors import WHY_NO_ERRORS
from lit_attr.topology.words import METRICS, SIGNS, Direction
from lit_attr.view.drawing import subgraph
from lit_attr.view.parameters import Parameters
from lit_attr.view.viewed_result import ViewedResult

# As many as an index keeps of each list.
_MOST_ROWS = 64
_LONGEST_TEXT = 200
# What answers say of a list, which is of one sign.
_OF_A_LIST = ("not_held", "n_separated", "n_unsure")


def about(result: ViewedResult, parameters: Parameters) -> dict[str, Any]:
    """The result itself: where it is, which run and harvest it is from, how much of it was harvested."""
    explorer = result.explorer
    storage, tokens = explorer.storage, explorer.tokens
    return {
        "file": str(result.path),
        "name": vars(explorer.name),
        "size": result.size,
        "n_tokens": storage.n_tokens_processed,
        "ci_threshold": storage.ci_threshold,
        "layers": [
            {"layer": layer, "size": size, "n_not_harvested": _n_not_harvested(explorer, layer)}
            for layer, size in explorer.layers.items()
        ],
        "partial": _partial(storage.recorded),
        "rounding": None if storage.rounding is None else str(storage.rounding),
        **_about_abs(storage),
        "provenance": _plain_json(storage.provenance),
        "standard_errors": storage.error_basis,
        "why_no_errors": WHY_NO_ERRORS if storage.standard_errors is None else None,
        "few": FEW,
        "most_looked_at": MOST_LOOKED_AT,
        "indexed": explorer.is_indexed,
        "n_kept": explorer.n_kept,
        "tokenizer": None if tokens is None else str(tokens.file),
    }


def neighbours(result: ViewedResult, parameters: Parameters) -> dict[str, Any]:
    """The strongest positive and negative sources and targets of a key; where there are none, why."""
    key, k = parameters.text("key"), parameters.whole("rows", _MOST_ROWS, 1, _MOST_ROWS)
    explorer = result.explorer
    known = explorer.reader.key(key)
    answer: dict[str, Any] = parameters.measure
    ways: tuple[tuple[Direction, Callable[..., Ranking], bool], ...] = (
        ("sources", explorer.sources, explorer.has_target(known)),
        ("targets", explorer.targets, explorer.has_source(known)),
    )
    for name, ask, _ in ways:
        answer[name] = {"positive": [], "negative": [], "none": None, "n_not_harvested": 0}
        answer[name] |= {said: {} for said in _OF_A_LIST}
        for sign in SIGNS:
            try:
                chosen = {"sign": sign, "layers": parameters.layers, "sure": parameters.sure}
                ranking = ask(key, k=k, **parameters.measure, **chosen)
            except EdgeNotFoundError as error:
                if not any(is_one for *_, is_one in ways):
                    raise EdgeNotFoundError(str(error).removeprefix(f"no {name} of {key}: ")) from error
                answer[name]["none"] = str(error)
                continue
            found = plain(ranking)
            answer[name][sign] = found["entries"]
            for said in _OF_A_LIST:
                answer[name][said][sign] = found[said]
            answer[name]["n_not_harvested"] = ranking.n_not_harvested
            answer["was_harvested"] = answer.get("was_harvested", True) and ranking.was_harvested
    return {"node": vars(explorer.node(known)), **answer}


def edge(result: ViewedResult, parameters: Parameters) -> dict[str, Any]:
    """One edge, by every metric that it has, and that can be shown."""
    answers = {}
    for metric in METRICS if _about_abs(result.explorer.storage)["why_no_abs"] is None else METRICS[:1]:
        try:
            answer = result.explorer.edge(parameters.text("source"), parameters.text("target"), metric=metric)
        except EdgeNotFoundError:
            if metric == METRICS[0]:
                raise
            continue
        answers[metric] = plain(answer)
    return {"by_metric": answers}


def overview(result: ViewedResult, parameters: Parameters) -> dict[str, Any]:
    """The edge mass between layers, unless summing it takes long and was not asked for."""
    if not (result.is_quick(parameters.metric) or parameters.flag("anyway")):
        return {"slow": True}
    return {"slow": False, **plain(result.matrix(parameters.metric, normalized=parameters.normalized))}


def pair(result: ViewedResult, parameters: Parameters) -> dict[str, Any]:
    """The strongest edges between two layers, unless finding them takes long and was not asked for."""
    names = parameters.text("source"), parameters.text("target")
    layers = result.explorer.layer_pair(*names, metric=parameters.metric)
    if not (result.is_quick(parameters.metric, layers) or parameters.flag("anyway")):
        return {"slow": True}
    k = parameters.whole("rows", _MOST_ROWS, 1, _MOST_ROWS)
    answer: dict[str, Any] = {"slow": False, "source": layers[0], "target": layers[1]}
    answer |= {said: {} for said in _OF_A_LIST}
    for sign in SIGNS:
        found = plain(result.pair_edges(*layers, k=k, sign=sign, **parameters.measure, sure=parameters.sure))
        answer |= {sign: found["edges"], "n_not_harvested": found["n_not_harvested"]}
        for said in _OF_A_LIST:
            answer[said][sign] = found[said]
    return answer


def search(result: ViewedResult, parameters: Parameters) -> dict[str, Any]:
    """Components and tokens by what someone types."""
    text = parameters.text("text")
    if len(text) > _LONGEST_TEXT:
        raise ConfigurationError(f"text: expected {_LONGEST_TEXT} characters at most, found {len(text)}")
    return result.search.answer(text)


def _n_not_harvested(explorer: Explorer, layer: str) -> int | None:
    """How many components of a layer were no targets; None where the provenance's list of them is damaged."""
    try:
        return explorer.harvested.n_missing([layer])
    except StorageError:
        return None


def _partial(provenance: Provenance) -> str | None:
    try:
        return provenance.partial
    except StorageError as error:  # what is in the result can be looked at all the same
        return f"unknown share of batches ({error})"


def _about_abs(storage: Content) -> dict[str, str | None]:
    """Why attr_abs was not harvested, or from which share of the sequences it is, if not from all; None otherwise."""
    why, sample = None, None
    try:
        if "attr_abs" in storage.metrics:
            sample = storage.sample("attr_abs")
        else:
            why = storage.recorded.harvested_metrics.why_no_abs
    except StorageError as error:  # attr can be looked at all the same
        why = f"attr_abs cannot be shown: {error}"
    return {"why_no_abs": why, "abs_sample": None if sample is None else str(sample)}


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
