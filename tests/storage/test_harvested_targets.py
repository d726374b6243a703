import math

import pytest

from lit_attr.errors import StorageError
from lit_attr.storage.harvested_targets import HarvestedTargets
from lit_attr.storage.key_edges import KeyEdges
from lit_attr.topology.address import ComponentKey
from tests.storage.examples import partly_harvested, random_storage

NOT_TARGETS = {"0.mlp.up": [1], "0.attn.q": [0, 1], "0.mlp.down": []}


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
def test_an_attribution_that_was_not_measured_is_no_number(metric, normalized):
    storage, complete = partly_harvested(NOT_TARGETS), random_storage()
    chosen = {"metric": metric, "normalized": normalized}
    for target in ("0.mlp.up:1", "0.attn.q:0"):
        assert math.isnan(storage.get_attribution("embed:2", target, **chosen))
        assert complete.get_attribution("embed:2", target, **chosen) != 0
    for ends in (("embed:2", "0.mlp.up:2"), ("0.attn.q:1", "0.mlp.up:0"), ("0.mlp.up:1", "0.mlp.down:3")):
        assert storage.get_attribution(*ends, **chosen) == complete.get_attribution(*ends, **chosen) != 0
    assert storage.get_attribution("embed:2", "output:3") == complete.get_attribution("embed:2", "output:3")
    assert storage.get_top_sources("0.mlp.up:1", metric=metric) == []
    targets = storage.get_top_targets("embed:2", k=100, metric=metric)
    assert {"0.mlp.up:1", "0.attn.q:0", "0.attn.q:1"}.isdisjoint(entry.component_key for entry in targets)
    assert KeyEdges(storage).sources(ComponentKey("0.mlp.up", 1)) == []


def test_which_components_were_targets():
    harvested = HarvestedTargets(partly_harvested(NOT_TARGETS))
    assert [harvested.include(ComponentKey("0.mlp.up", index)) for index in range(3)] == [True, False, True]
    assert harvested.include(ComponentKey("output", 1))
    shares = {layer: harvested.share(layer) for layer in ("0.mlp.up", "0.attn.q", "0.mlp.down", "output")}
    assert shares == {"0.mlp.up": pytest.approx(2 / 3), "0.attn.q": 0, "0.mlp.down": 1, "output": 1}
    assert harvested.n_missing(["0.mlp.up", "0.attn.q", "0.mlp.down", "output"]) == 3


@pytest.mark.parametrize("provenance", [None, {}, {"not_targets": {}}, {"run_id": "of another tool"}])
def test_a_file_that_does_not_say_is_taken_as_it_is(provenance):
    storage = random_storage(provenance=provenance)
    storage.embed_attr["0.mlp.up"][1] = 0
    assert storage.get_attribution("embed:2", "0.mlp.up:1") == 0
    assert HarvestedTargets(storage).n_missing(storage.ci_sum) == 0


@pytest.mark.parametrize("wrong", [[3], [-1], [0, 99], "1", [0.5], [True]])
def test_a_list_that_is_damaged(wrong):
    storage = random_storage(provenance={"not_targets": {"0.mlp.up": wrong}})
    with pytest.raises(StorageError, match=r"the provenance's not_targets of 0\.mlp\.up is damaged: expected indices"):
        storage.get_attribution("embed:2", "0.mlp.up:0")
    assert storage.get_attribution("embed:2", "0.attn.q:0") != 0
