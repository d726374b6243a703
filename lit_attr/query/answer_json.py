"""Answers in plain types, for JSON."""

from dataclasses import fields
from typing import Any

import numpy as np

from lit_attr.query.answers import Edge, EdgeAnswer, Node
from lit_attr.query.compare_answers import ComparedEdge, PairOfMasses
from lit_attr.query.found import NotHeld
from lit_attr.storage.harvested_metrics import Sample


def plain(answer: object) -> dict[str, Any]:
    """An answer in plain types: nodes of edges by their keys, with the texts of tokens beside them."""
    entries: dict[str, Any] = {}
    for field in fields(answer):  # type: ignore[arg-type]
        value = getattr(answer, field.name)
        if field.name == "question":  # named by the command already
            continue
        if (isinstance(answer, Edge | EdgeAnswer | ComparedEdge) and isinstance(value, Node)) or field.name == "key":
            entries[field.name] = value.component_key
            entries["token" if field.name == "key" else f"{field.name}_token"] = value.token
        else:
            entries[field.name] = _plain(value)
    return entries


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever an answer holds
    if isinstance(value, Node | Sample | NotHeld | PairOfMasses):
        return vars(value)
    if isinstance(value, Edge | ComparedEdge):
        return plain(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):  # in JSON there is nothing that is not a number: what was not measured is null
        numbers = value.astype(object)
        numbers[np.isnan(value)] = None
        return numbers.tolist()
    return value
