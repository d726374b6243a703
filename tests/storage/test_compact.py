"""The compact form: what is left out, and that nothing is lost. What answers say in either form: `tests/query`."""

import pytest
import torch
from hypothesis import given, settings

from lit_attr.errors import StorageError
from lit_attr.storage.compact import Moved, compacted, dense, live_of
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.file_content import file_keys
from lit_attr.storage.verify import verify
from lit_attr.topology.live import LiveSet
from tests.query.examples import storages
from tests.storage.examples import partly_harvested, random_storage

NOT_TARGETS = {"0.mlp.up": [1], "0.attn.q": [0, 1], "0.mlp.down": []}


def with_dead_sources(dead: dict[str, list[int]], seed: int = 0, not_targets=NOT_TARGETS) -> DatasetAttributionStorage:
    """A dense storage in which some sources never occurred."""
    storage = partly_harvested(not_targets, seed)
    for layer, indices in dead.items():
        weights = storage.embed_token_count if layer == "embed" else storage.ci_sum[layer]
        weights[indices] = 0
        for nested in (storage.regular_attr, storage.regular_attr_abs):
            for by_source in nested.values():
                if layer in by_source:
                    by_source[layer][:, indices] = 0
        if layer in storage.unembed_attr:
            storage.unembed_attr[layer][:, indices] = 0
        if layer == "embed":
            for block in (*storage.embed_attr.values(), *storage.embed_attr_abs.values(), storage.embed_unembed_attr):
                block[:, indices] = 0
    object.__setattr__(storage, "n_tokens_processed", int(storage.embed_token_count.sum()))
    return storage


DEAD = {"embed": [0, 1, 3], "0.mlp.up": [0, 2], "0.mlp.down": [0, 1, 2, 3], "0.attn.q": []}


def same(one, other):
    """Whether two results are the same, to the last bit, in the same form."""
    mine, theirs = (dict(each.named_sums()) for each in (one, other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (one.live is None) == (other.live is None)
    if one.live is not None:
        for side in ("sources", "targets"):
            ids, others = getattr(one.live, side), getattr(other.live, side)
            assert {layer: known.tolist() for layer, known in ids.items()} == {k: v.tolist() for k, v in others.items()}
    return True


def test_what_has_a_place():
    storage = with_dead_sources(DEAD)
    small = compacted(storage)
    assert {layer: ids.tolist() for layer, ids in small.live.sources.items()} == {
        **{"0.mlp.up": [1], "0.attn.q": [0, 1], "0.mlp.down": [], "embed": [2, 4]},
    }
    assert {layer: ids.tolist() for layer, ids in small.live.targets.items()} == {
        **{"0.mlp.up": [0, 2], "0.attn.q": [], "0.mlp.down": [0, 1, 2, 3]},
    }
    assert small.regular_attr["0.mlp.up"]["0.attn.q"].shape == (2, 2)
    assert small.embed_attr["0.mlp.up"].shape == (2, 2)
    assert small.unembed_attr["0.mlp.down"].shape == (6, 0)
    assert small.embed_unembed_attr.shape == (6, 2)
    assert small.embed_attr["0.mlp.up"].tolist() == storage.embed_attr["0.mlp.up"][[0, 2]][:, [2, 4]].tolist()
    assert same(dense(small), storage)
    assert compacted(small) is small
    assert dense(storage) is storage


@settings(max_examples=50, deadline=None, derandomize=True)
@given(storages())
def test_nothing_is_lost(storage):
    small = compacted(storage)
    assert same(dense(small), storage)
    assert same(compacted(dense(small)), small)
    assert sum(tensor.numel() for _, tensor in small.named_sums()) <= sum(t.numel() for _, t in storage.named_sums())


def test_edges_of_what_never_occurred_are_kept_where_they_are_not_zero():
    storage = random_storage()
    storage.ci_sum["0.attn.q"][:] = 0  # so a damaged file may say
    assert live_of(storage).sources["0.attn.q"].tolist() == [0, 1]
    storage.regular_attr["0.mlp.up"]["0.attn.q"][:, 1] = 0
    storage.regular_attr_abs["0.mlp.up"]["0.attn.q"][:, 1] = 0
    assert live_of(storage).sources["0.attn.q"].tolist() == [0]
    assert same(dense(compacted(storage)), storage)


def test_zero_has_no_sign():
    storage = with_dead_sources(DEAD)
    storage.embed_attr["0.mlp.up"][0, 0] = -0.0
    for form in (storage, compacted(storage)):
        assert repr(form.get_attribution("embed:0", "0.mlp.up:0")) == "0.0"


@pytest.mark.parametrize("has", [None, [], [1, 4], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("gets", [None, [], [0, 1, 4], [0, 1, 2, 3, 4]])
def test_moving_a_block(has, gets):
    sets = [LiveSet(5, None if ids is None else torch.tensor(ids, dtype=torch.int64)) for ids in (has, gets)]
    full = torch.zeros(5, 5)
    had, wanted = (members.all_indices for members in sets)
    block = torch.arange(1.0, len(had) ** 2 + 1).view(len(had), len(had))
    full[had[:, None], had] = block
    moved = Moved(block, tuple(sets), tuple(sets))
    assert torch.equal(moved.whole, full[wanted[:, None], wanted])
    assert moved.whole.shape == moved.shape
    assert torch.equal(torch.cat([moved.part(n, n + 1) for n in range(len(wanted))] or [moved.whole]), moved.whole)


def test_a_file_has_the_form_of_what_was_saved(tmp_path):
    storage = with_dead_sources(DEAD)
    storage.save(tmp_path / "dense.pt")
    compacted(storage).save(tmp_path / "compact.pt")
    assert "live" not in torch.load(tmp_path / "dense.pt", weights_only=True)
    loaded = DatasetAttributionStorage.load(tmp_path / "compact.pt")
    assert same(dense(loaded), DatasetAttributionStorage.load(tmp_path / "dense.pt"))
    assert same(loaded, compacted(DatasetAttributionStorage.load(tmp_path / "dense.pt")))
    plain = verify(tmp_path / "dense.pt")
    form = "; compact form: 5 of 14 sources and 6 of 9 targets have a place, all others are zero or were no targets"
    assert [line.replace(form, "") for line in verify(tmp_path / "compact.pt")] == plain
    assert form in verify(tmp_path / "compact.pt")[1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda live: None, "live: expected sources and targets, found None"),
        (lambda live: {"sources": live["sources"]}, "live: expected sources and targets, found"),
        (lambda live: {**live, "targets": [1]}, r"live targets: expected layers, found \[1\]"),
        (lambda live: {**live, "sources": {1: None}}, "live sources: expected layers, found"),
        (lambda live: without(live, "sources", "embed"), "live sources: expected an entry of embed, which has edges"),
        (lambda live: without(live, "targets", "0.attn.q"), "live targets: expected an entry of 0.attn.q, which has"),
        (lambda live: having(live, "sources", "x", [0]), "live sources: expected layers of the result, found 'x'"),
        (lambda live: having(live, "sources", "embed", [4, 2]), "live sources of embed: expected ascending numbers"),
        (lambda live: having(live, "sources", "embed", [2, 2]), "live sources of embed: expected ascending numbers"),
        (lambda live: having(live, "sources", "embed", [2, 5]), "expected ascending numbers from 0 to 4, found others"),
        (lambda live: having(live, "targets", "0.mlp.up", [-1, 2]), "live targets of 0.mlp.up: expected ascending"),
        (lambda live: having(live, "targets", "0.mlp.up", [0.0, 2.0]), "expected a list of int64, found torch.float32"),
        (lambda live: having(live, "targets", "0.mlp.up", [[0, 2]]), r"list of int64, found torch.int64 of shape \(1,"),
        (lambda live: having(live, "targets", "0.mlp.up", [0]), "shapes do not belong together"),
        (
            lambda live: having(live, "sources", "embed", [0, 2]),
            "live sources of embed: expected all that occur in the",
        ),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    keys = file_keys(compacted(with_dead_sources(DEAD)))
    torch.save({**keys, "live": damage(keys["live"])}, tmp_path / "a.pt")
    with pytest.raises(StorageError, match=message) as caught:
        DatasetAttributionStorage.load(tmp_path / "a.pt")
    assert str(tmp_path / "a.pt") in str(caught.value)


def without(live, side, layer):
    return {**live, side: {name: ids for name, ids in live[side].items() if name != layer}}


def having(live, side, layer, ids):
    return {**live, side: {**live[side], layer: torch.tensor(ids)}}


def test_targets_that_were_harvested_have_a_place():
    small = compacted(with_dead_sources(DEAD))
    small.provenance["not_targets"]["0.mlp.up"] = [2]
    with pytest.raises(StorageError, match=r"live targets of 0\.mlp\.up: expected all components but those that the"):
        small.get_attribution("embed:2", "0.mlp.up:0")
    del small.provenance["not_targets"]["0.mlp.up"]  # without a list, what has no place was no target
    assert small.get_top_sources("0.mlp.up:1") == []
    assert small.get_attribution("embed:2", "0.mlp.up:1") != small.get_attribution("embed:2", "0.mlp.up:0")


@pytest.mark.parametrize("forms", [(compacted, compacted), (dense, compacted), (compacted, dense)])
def test_sums_of_either_form(tmp_path, forms):
    apart = with_dead_sources({"embed": [0, 1], "0.mlp.up": [1, 2]}, seed=3)
    parts = with_dead_sources(DEAD), apart
    for name, part in zip("ab", parts, strict=True):
        part.save(tmp_path / f"{name}.dense.pt")
    for name, part, form in zip("ab", parts, forms, strict=True):
        form(part).save(tmp_path / f"{name}.pt")
    merged = DatasetAttributionStorage.merge([tmp_path / "a.pt", tmp_path / "b.pt"])
    expected = DatasetAttributionStorage.merge([tmp_path / "a.dense.pt", tmp_path / "b.dense.pt"])
    assert expected.live is None
    assert merged.live.sources["0.mlp.up"].tolist() == [0, 1]
    assert same(dense(merged), expected)
    assert same(merged, compacted(expected))
