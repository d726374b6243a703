import math

import pytest
import torch

from lit_attr.errors import ConfigurationError, EdgeNotFoundError, KeyFormatError, StorageError
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.top_k import DatasetAttributionEntry
from tests.storage.examples import random_storage

ALL = 10**6


def reference_sources(s, layer, index, metric):
    """Every source of a key with its normalised value, one number at a time."""
    n = s.n_tokens_processed
    values = {}
    if layer == "output":
        rms = max(math.sqrt(float(s.logit_sq_sum[index]) / n), 1e-10)
        blocks = [*s.unembed_attr.items(), ("embed", s.embed_unembed_attr)] if metric == "attr" else []
        rows = [(src, (s.w_unembed[:, index, None] * block).sum(0)) for src, block in blocks]
    else:
        rms = max(math.sqrt(float(s.component_act_sq_sum[layer][index]) / n), 1e-10)
        regular, embed = (s.regular_attr, s.embed_attr) if metric == "attr" else (s.regular_attr_abs, s.embed_attr_abs)
        rows = [(src, block[index]) for src, block in regular[layer].items()]
        rows += [("embed", embed[layer][index])] if layer in embed else []
    for src, row in rows:
        scale = s.embed_token_count if src == "embed" else s.ci_sum[src]
        for i, raw in enumerate(row.tolist()):
            values[f"{src}:{i}"] = raw / max(float(scale[i]), 1e-10) / rms
    return values


@pytest.fixture(scope="module")
def storage():
    return random_storage()


@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
@pytest.mark.parametrize("sign", ["positive", "negative"])
@pytest.mark.parametrize("key", ["0.mlp.up:2", "0.mlp.down:3", "0.attn.q:0", "output:4"])
def test_top_sources(storage, key, sign, metric):
    layer, _, index = key.rpartition(":")
    factor = 1 if sign == "positive" else -1
    expected = {k: v for k, v in reference_sources(storage, layer, int(index), metric).items() if v * factor > 0}
    ordered = sorted(expected, key=lambda k: -factor * expected[k])
    found = storage.get_top_sources(key, ALL, sign, metric)
    assert [e.component_key for e in found] == ordered
    assert [e.value for e in found] == pytest.approx([expected[k] for k in ordered], rel=1e-5)
    assert storage.get_top_sources(key, 2, sign, metric) == found[:2]
    assert all(e.component_key == f"{e.layer}:{e.component_idx}" for e in found)


@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
@pytest.mark.parametrize("sign", ["positive", "negative"])
@pytest.mark.parametrize("include_outputs", [True, False])
@pytest.mark.parametrize("key", ["embed:0", "0.attn.q:1", "0.mlp.up:2", "0.mlp.down:3"])
def test_top_targets_are_the_transpose_of_top_sources(storage, key, sign, metric, include_outputs):
    factor = 1 if sign == "positive" else -1
    targets = [("0.mlp.up", 3), ("0.attn.q", 2), ("0.mlp.down", 4)] + [("output", 5)] * include_outputs
    expected = {}
    for layer, n in targets:
        for index in range(n):
            value = reference_sources(storage, layer, index, metric).get(key, 0.0)
            if value * factor > 0:
                expected[f"{layer}:{index}"] = value
    ordered = sorted(expected, key=lambda k: -factor * expected[k])
    found = storage.get_top_targets(key, k=ALL, sign=sign, metric=metric, include_outputs=include_outputs)
    assert [e.component_key for e in found] == ordered
    assert [e.value for e in found] == pytest.approx([expected[k] for k in ordered], rel=1e-5)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("embed:2", "0.mlp.up:1"),
        ("0.attn.q:1", "0.mlp.up:0"),
        ("0.mlp.down:3", "output:4"),
        ("embed:3", "output:0"),
    ],
)
def test_single_edges(storage, source, target):
    (sl, _, si), (tl, _, ti) = source.rpartition(":"), target.rpartition(":")
    si, ti = int(si), int(ti)
    if tl == "output":
        block = storage.embed_unembed_attr if sl == "embed" else storage.unembed_attr[sl]
        raw = float(storage.w_unembed[:, ti] @ block[:, si].float())
    else:
        raw = float((storage.embed_attr[tl] if sl == "embed" else storage.regular_attr[tl][sl])[ti, si])
    assert storage.get_attribution(source, target) == pytest.approx(raw, rel=1e-5)
    normalised = reference_sources(storage, tl, ti, "attr")[source]
    assert storage.get_attribution(source, target, normalized=True) == pytest.approx(normalised, rel=1e-5)


def test_single_edge_of_magnitudes(storage):
    expected = float(storage.regular_attr_abs["0.mlp.up"]["0.attn.q"][1, 0])
    assert storage.get_attribution("0.attn.q:0", "0.mlp.up:1", metric="attr_abs") == pytest.approx(expected)


@pytest.mark.parametrize("key", ["9.mlp.up:0", "0.mlp.up:3", "embed:5", "output:5", "embed:0", "nowhere:1"])
def test_unknown_target_has_no_sources(storage, key):
    assert storage.get_top_sources(key, 5, "positive") == []
    assert not storage.has_target(key)


@pytest.mark.parametrize("key", ["9.mlp.up:0", "0.mlp.down:4", "embed:5", "output:0", "nowhere:1"])
def test_unknown_source_has_no_targets(storage, key):
    assert storage.get_top_targets(key, k=5, sign="positive") == []
    assert not storage.has_source(key)


@pytest.mark.parametrize(
    ("key", "is_source", "is_target"), [("embed:4", True, False), ("output:4", False, True), ("0.mlp.up:2", True, True)]
)
def test_known_keys(storage, key, is_source, is_target):
    assert (storage.has_source(key), storage.has_target(key)) == (is_source, is_target)


@pytest.mark.parametrize(
    "key", ["", "0.mlp.up", "0.mlp.up:", ":3", "0.mlp.up:-1", "0.mlp.up:x", "0.mlp.up:1.0", "embed: 3"]
)
def test_malformed_keys(storage, key):
    for ask in (storage.get_top_sources, storage.get_top_targets, storage.has_source, storage.has_target):
        with pytest.raises(KeyFormatError, match=r"malformed component key .*: expected '<layer>:<index>'"):
            ask(key)
    with pytest.raises(KeyFormatError):
        storage.get_attribution(key, "0.mlp.up:0")


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        (
            "0.mlp.up:0",
            "0.attn.q:0",
            {},
            "no attr edge from 0.mlp.up:0 to 0.attn.q:0; layers that feed 0.attn.q: embed",
        ),
        ("0.mlp.up:3", "0.mlp.down:0", {}, r"0.mlp.up has 3 components \(0 to 2\)"),
        ("embed:5", "0.mlp.up:0", {}, r"embed has 5 token ids \(0 to 4\)"),
        (
            "1.mlp.up:0",
            "0.mlp.down:0",
            {},
            "unknown layer '1.mlp.up'; layers are: embed, 0.attn.q, 0.mlp.up, 0.mlp.down",
        ),
        ("embed:0", "output:0", {"metric": "attr_abs"}, "attributions to the output have no attr_abs"),
        ("output:0", "0.mlp.up:0", {}, "the output feeds nothing"),
        ("0.mlp.up:0", "embed:0", {}, "nothing feeds the embedding"),
    ],
)
def test_absent_edges_say_why(storage, source, target, options, message):
    with pytest.raises(EdgeNotFoundError, match=message):
        storage.get_attribution(source, target, **options)
    with pytest.raises(KeyError):  # what the other implementation raises
        storage.get_attribution(source, target, **options)


def test_options_out_of_range(storage):
    with pytest.raises(ConfigurationError, match="k must be a whole number of at least 1, found 0"):
        storage.get_top_sources("output:0", 0)
    with pytest.raises(ConfigurationError, match=r"k must be a whole number of at least 1, found 2\.5"):
        storage.get_top_targets("embed:0", 2.5)
    with pytest.raises(ConfigurationError, match=r"sign must be one of \['positive', 'negative'\], found 'up'"):
        storage.get_top_sources("output:0", 1, "up")
    with pytest.raises(ConfigurationError, match=r"metric must be one of \['attr', 'attr_abs'\], found 'x'"):
        storage.get_top_sources("0.mlp.up:0", 1, "positive", "x")


def test_never_active_denominators_are_raised_to_epsilon(storage):
    changed = DatasetAttributionStorage(
        **{**vars(storage), "ci_sum": {k: torch.zeros_like(v) for k, v in storage.ci_sum.items()}}
    )
    raw = storage.get_attribution("0.attn.q:0", "0.mlp.up:0")
    rms = math.sqrt(float(storage.component_act_sq_sum["0.mlp.up"][0]) / storage.n_tokens_processed)
    found = changed.get_attribution("0.attn.q:0", "0.mlp.up:0", normalized=True)
    assert found == pytest.approx(raw / 1e-10 / rms, rel=1e-5)


def test_values_that_are_not_finite_are_no_answer(storage):
    broken = storage.embed_attr["0.mlp.up"].clone()
    broken[1, 3] = float("nan")
    embed = {**storage.embed_attr, "0.mlp.up": broken}
    changed = DatasetAttributionStorage(**{**vars(storage), "embed_attr": embed})
    assert changed.get_top_sources("0.mlp.up:0", 3)
    with pytest.raises(StorageError, match="the stored sums are not finite"):
        changed.get_top_sources("0.mlp.up:1", 3)


def test_entry_fields():
    entry = DatasetAttributionEntry(component_key="0.mlp.up:5", layer="0.mlp.up", component_idx=5, value=1.0)
    assert vars(type(entry)).keys() >= {"__dataclass_fields__"}
