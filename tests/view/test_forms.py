"""What the page is told of the compact form of a result is what it is told of the dense one."""

import itertools
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from lit_attr.errors import LitAttrError
from lit_attr.view.parameters import Parameters
from lit_attr.view.questions import QUESTIONS
from lit_attr.view.viewed_result import ViewedResult
from tests.query.forms import both_forms, sparse_storages


def told(result, question, parameters):
    try:
        answer = QUESTIONS[question](result, Parameters(QueryParams(parameters)))
    except LitAttrError as error:
        return str(error)
    if question == "about":
        answer = {name: value for name, value in answer.items() if name not in ("file", "name", "size")}
    return json.dumps(answer)


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(sparse_storages(), st.booleans())
def test_every_question(storage, indexed):
    with both_forms(storage, indexed=indexed) as explorers:
        results = [ViewedResult(explorer.path) for explorer in explorers]
        keys = [f"{layer}:{index}" for layer, size in explorers[0].layers.items() for index in range(size)]
        asked = [
            ("about", {}),
            *(("search", {"text": text}) for text in ("0.mlp.up:", "0.mlp.up:1", "mlp", "output:0")),
            *(("edge", {"source": s, "target": t}) for s, t in itertools.product(keys, repeat=2)),
        ]
        for chosen in ({}, {"metric": "attr_abs"}, {"raw": "1"}):
            asked += [
                *(("neighbours", {"key": key, **chosen}) for key in keys),
                *(("subgraph", {"key": key, "walk": keys[0], "pin": keys[-1], **chosen}) for key in keys),
                ("overview", chosen),
                *(("pair", {"source": s, "target": t, **chosen}) for s, t in explorers[0].layer_pairs()),
            ]
        for question, parameters in asked:
            one, other = (told(result, question, parameters) for result in results)
            assert one == other, question
