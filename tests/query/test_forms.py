"""Answers from the compact form of a result are those from the dense one, bit for bit."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_attr.errors import LitAttrError
from lit_attr.query import running_lists
from lit_attr.query.answer_json import plain
from lit_attr.topology.words import ANY_SIGNS, METRICS, SIGNS
from tests.query.examples import small_tiles
from tests.query.forms import both_forms, sparse_storages

thorough = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Boundaries are at other places in either form."""
    small_tiles(monkeypatch)
    monkeypatch.setattr(running_lists, "_SUMMED", 2)


def told(ask):
    """What is answered, or refused, as a text in which every bit of a number shows."""
    try:
        answer = ask()
    except LitAttrError as error:
        return f"{type(error).__name__}: {error}"
    frame = answer.frame().write_json() if hasattr(answer, "frame") else ""
    return json.dumps(plain(answer) if frame else answer, default=repr) + frame


def keys(storage):
    """Every key that there is, and of every layer one that there is not."""
    for layer in ("embed", *storage.ci_sum, "output"):
        for index in range(storage.layer_size(layer) + 1):
            yield f"{layer}:{index}"


@thorough
@given(sparse_storages(), st.booleans(), st.sampled_from(ANY_SIGNS), st.integers(1, 9), st.booleans())
def test_rankings_and_edges(storage, indexed, sign, k, filtered):
    with both_forms(storage, indexed=indexed) as explorers:
        layers = ("0.attn.*", "output", "embed") if filtered else ()
        for metric, normalized in itertools.product(METRICS, (False, True)):
            options = {"k": k, "sign": sign, "metric": metric, "normalized": normalized, "layers": layers}
            for key in keys(storage):
                for name in ("sources", "targets"):
                    one, other = (told(lambda e=e: getattr(e, name)(key, **options)) for e in explorers)  # noqa: B023
                    assert one == other
        for ends in itertools.product(keys(storage), repeat=2):
            one, other = (told(lambda e=e: e.edge(*ends)) for e in explorers)  # noqa: B023
            assert one == other


@thorough
@given(sparse_storages(), st.booleans(), st.sampled_from(ANY_SIGNS), st.integers(1, 9), st.booleans())
def test_layers_and_subgraphs(storage, indexed, sign, k, normalized):
    with both_forms(storage, indexed=indexed) as explorers:
        for metric in METRICS:
            options = {"metric": metric, "normalized": normalized}
            asked = [
                *(lambda e, s=s: e.matrix(statistic=s, **options) for s in ("mass", "mean")),  # noqa: B023
                *(lambda e, by=by: e.edges(k=k, by=by, sign=sign, **options) for by in ("pair", "strength")),  # noqa: B023
                lambda e: e.subgraph(["embed:0", "output:0"], k=k, sign=sign, threshold=0.1, **options),  # noqa: B023
            ]
            for ask in asked:
                one, other = (told(lambda e=e: ask(e)) for e in explorers)  # noqa: B023
                assert one == other
            for pair in explorers[0].layer_pairs(metric=metric):
                one, other = (e.block(*pair, **options) for e in explorers)
                assert (one.sources, one.targets, one.n_not_harvested) == (
                    other.sources,
                    other.targets,
                    other.n_not_harvested,
                )
                assert np.array_equal(one.values, other.values, equal_nan=True)
                assert one.frame().equals(other.frame())


@thorough
@given(sparse_storages(), st.integers(1, 9))
def test_the_api_of_the_original(storage, k):
    with both_forms(storage) as explorers:
        stored = [explorer.storage for explorer in explorers]
        for metric, sign in itertools.product(METRICS, SIGNS):
            for key in keys(storage):
                for ask in (
                    lambda s: s.get_top_sources(key, k, sign, metric),  # noqa: B023
                    lambda s: s.get_top_targets(key, k, sign, metric, include_outputs=False),  # noqa: B023
                    lambda s: s.get_top_targets(key, k, sign, metric),  # noqa: B023
                    lambda s: (s.has_source(key), s.has_target(key), s.n_components),  # noqa: B023
                ):
                    assert ask(stored[0]) == ask(stored[1])
        for ends in itertools.product(keys(storage), repeat=2):
            one, other = (told(lambda s=s: s.get_attribution(*ends, normalized=True)) for s in stored)  # noqa: B023
            assert one == other


@thorough
@given(sparse_storages())
def test_what_was_not_measured_is_not_zero(storage):
    with both_forms(storage) as (_, compact):
        not_targets, live = storage.provenance["not_targets"], compact.storage.live
        for source, target in compact.layer_pairs():
            if target == "output":
                continue
            for index in range(storage.layer_size(target)):
                values = [
                    compact.storage.get_attribution(f"{source}:{i}", f"{target}:{index}")
                    for i in range(storage.layer_size(source))
                ]
                assert all(map(math.isnan, values)) == (index in not_targets[target])
                if index not in not_targets[target]:
                    dead = set(range(len(values))) - set(live.sources[source].tolist())
                    assert {values[i] for i in dead} <= {0.0}
