import inspect
import math
import pickle
import struct
import subprocess
import sys

import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.storage.examples import READ, TOPOLOGY, partly_harvested, random_storage, random_sums, unembedding

KEYS = [
    "regular_attr",
    "regular_attr_abs",
    "embed_attr",
    "embed_attr_abs",
    "unembed_attr",
    "embed_unembed_attr",
    "w_unembed",
    "ci_sum",
    "component_act_sq_sum",
    "logit_sq_sum",
    "embed_token_count",
    "ci_threshold",
    "n_tokens_processed",
]


def flat(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}/{key}")
    else:
        yield name, value


def test_file_has_the_thirteen_keys_and_provenance(tmp_path):
    random_storage(provenance={"engine": "autograd"}).save(tmp_path / "a.pt")
    raw = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(raw) == [*KEYS, "provenance"]
    assert raw["provenance"] == {"engine": "autograd"}
    assert list(inspect.signature(DatasetAttributionStorage).parameters) == [
        *KEYS,
        "provenance",
        "live",
        "standard_errors",
        "rounding",
    ]


def test_file_layout_is_the_other_implementations(tmp_path, shared):
    """Nesting, order, shapes, dtypes and contiguity of a golden file survive a round trip, and so do all values."""
    golden = torch.load(shared / "golden" / "s-kjvmlp02.pt", weights_only=True)
    DatasetAttributionStorage(**golden).save(tmp_path / "again.pt")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert again.pop("provenance") is None
    expected, found = dict(flat(golden)), dict(flat(again))
    assert list(found) == list(expected)
    assert list(again["regular_attr"]["0.attn.q"]) == []
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert (value.dtype, value.is_contiguous()) == (found[name].dtype, found[name].is_contiguous()), name
            assert torch.equal(value, found[name]), name
        else:
            assert (type(value), value) == (type(found[name]), found[name])


def test_sums_become_float32_under_the_right_names_and_orientation(tmp_path):
    sums = random_sums()
    random_storage().save(tmp_path / "a.pt")
    loaded = DatasetAttributionStorage.load(tmp_path / "a.pt")
    for blocks, tables in ((loaded.regular_attr, sums.attr), (loaded.regular_attr_abs, sums.attr_abs)):
        assert torch.equal(blocks["0.mlp.down"]["0.mlp.up"], tables["0.mlp.down"]["0.mlp.up"].numbers.T.float())
        assert torch.equal(blocks["0.mlp.up"]["0.attn.q"], tables["0.mlp.up"]["0.attn.q"].numbers.T.float())
    assert torch.equal(loaded.embed_attr["0.mlp.up"], sums.attr["0.mlp.up"]["embed"].numbers.T.float())
    assert torch.equal(loaded.embed_attr_abs["0.attn.q"], sums.attr_abs["0.attn.q"]["embed"].numbers.T.float())
    assert torch.equal(loaded.embed_unembed_attr, sums.attr["output"]["embed"].numbers.T.float())
    assert torch.equal(loaded.unembed_attr["0.mlp.down"], sums.attr["output"]["0.mlp.down"].numbers.T.float())
    assert torch.equal(loaded.w_unembed, unembedding())
    assert loaded.embed_token_count.dtype == torch.int64
    assert loaded.n_tokens_processed == int(sums.n_tokens)


def test_target_layers_and_n_components():
    storage = random_storage()
    assert storage.target_layers == {"0.mlp.up", "0.mlp.down", "0.attn.q"}
    assert storage.n_components == 9


def test_merge_is_one_harvest(tmp_path):
    paths = []
    for seed in (0, 1, 2):
        random_storage(seed).save(tmp_path / f"{seed}.pt")
        paths.append(tmp_path / f"{seed}.pt")
    whole = random_sums(0)
    whole.add_(random_sums(1))
    whole.add_(random_sums(2))
    merged = DatasetAttributionStorage.merge(paths)
    expected = DatasetAttributionStorage.from_sums(whole, READ, unembedding(), 0.0)
    assert merged.n_tokens_processed == expected.n_tokens_processed
    for (name, found), (_, value) in zip(merged.named_sums(), expected.named_sums(), strict=True):
        torch.testing.assert_close(found, value.to(found.dtype), rtol=1e-6, atol=1e-6, msg=name)


def test_merge_is_the_token_weighted_mean(tmp_path):
    parts = [random_storage(seed) for seed in (0, 7)]
    for seed, part in enumerate(parts):
        part.save(tmp_path / f"{seed}.pt")
    merged = DatasetAttributionStorage.merge([tmp_path / "0.pt", tmp_path / "1.pt"])
    means, weights = zip(
        *((p.regular_attr["0.mlp.up"]["0.attn.q"] / p.n_tokens_processed, p.n_tokens_processed) for p in parts),
        strict=True,
    )
    assert weights[0] != weights[1]
    weighted = sum(m * w for m, w in zip(means, weights, strict=True)) / sum(weights)
    torch.testing.assert_close(
        merged.regular_attr["0.mlp.up"]["0.attn.q"] / merged.n_tokens_processed, weighted.float(), rtol=1e-6, atol=1e-7
    )


def test_merge_keeps_what_provenances_agree_on(tmp_path):
    for seed, engine in ((0, "a"), (1, "b")):
        own = {"n_tokens": 8, "data_shape": [2, 4], "generations": [{"generation": 1}]}
        known = {"weights_digest": "x", "engine": engine, **own}
        random_storage(seed, provenance=known).save(tmp_path / f"{seed}.pt")
    merged = DatasetAttributionStorage.merge([tmp_path / "0.pt", tmp_path / "1.pt"])
    assert merged.provenance["weights_digest"] == "x"
    assert not {"engine", "coverage", *own} & merged.provenance.keys()
    assert [part["engine"] for part in merged.provenance["merged_from"]] == ["a", "b"]


def _changed(name, value):
    storage = random_storage()
    return DatasetAttributionStorage(**{**vars(storage), name: value})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: _changed("ci_threshold", 0.5), r"cannot merge .*1\.pt with .*0\.pt: ci_threshold 0\.5, expected 0\.0"),
        (lambda: _changed("w_unembed", unembedding(1)), "unembeddings .* differ"),
        (lambda: _changed("unembed_attr", {}), r"1 sums differ in name or shape.*unembed_attr\[0\.mlp\.down\]"),
        (lambda: random_storage(provenance={"weights_digest": "y"}), "weights_digest 'y', expected 'x'"),
    ],
)
def test_merge_refuses_another_model(tmp_path, other, message):
    random_storage(provenance={"weights_digest": "x"}).save(tmp_path / "0.pt")
    other().save(tmp_path / "1.pt")
    with pytest.raises(StorageError, match=message):
        DatasetAttributionStorage.merge([tmp_path / "0.pt", tmp_path / "1.pt"])


def test_merge_refuses_other_targets_and_the_same_file_twice(tmp_path):
    """Rows that one harvest left zero would be divided by the tokens of both."""
    for seed, dead in ((0, []), (1, [2])):
        random_storage(seed, provenance={"not_targets": {"0.mlp.up": dead}}).save(tmp_path / f"{seed}.pt")
    with pytest.raises(StorageError, match=r"not_targets \{'0\.mlp\.up': \[2\]\}, expected \{'0\.mlp\.up': \[\]\}"):
        DatasetAttributionStorage.merge([tmp_path / "0.pt", tmp_path / "1.pt"])
    (tmp_path / "link.pt").symlink_to(tmp_path / "0.pt")
    with pytest.raises(StorageError, match=r"cannot merge a file with itself, .*0\.pt"):
        DatasetAttributionStorage.merge([tmp_path / "0.pt", tmp_path / "link.pt"])


@pytest.mark.parametrize("provenance", [None, {"run_id": "s-1"}])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_merge_with_a_result_that_does_not_record_its_targets(tmp_path, order, provenance):
    """What one did not measure is not taken for measured because the other does not say so, and is not half a sum."""
    not_targets = {"0.mlp.up": [0, 2]}
    partly_harvested(not_targets, 0).save(tmp_path / "0.pt")
    others = {"same": partly_harvested(not_targets, 1), "all": random_storage(1)}
    for name, other in others.items():
        DatasetAttributionStorage(**{**vars(other), "provenance": provenance}).save(tmp_path / f"{name}.pt")
    same, more = ([(tmp_path / "0.pt", tmp_path / f"{name}.pt")[place] for place in order] for name in others)
    merged = DatasetAttributionStorage.merge(same)
    assert merged.provenance["not_targets"] == not_targets
    assert math.isnan(merged.get_attribution("embed:1", "0.mlp.up:2"))
    with pytest.raises(
        StorageError, match=r"all\.pt does not record its targets, .* 0\.mlp\.up:0, 0\.mlp\.up:2, which"
    ):
        DatasetAttributionStorage.merge(more)


@pytest.mark.parametrize(("entry", "values"), [("weights_digest", "xy"), ("not_targets", ({}, {"0.mlp.up": [1]}))])
def test_a_merge_compares_all_results_that_record_something(tmp_path, entry, values):
    """Not each with the first one alone, which may record nothing."""
    for seed, provenance in enumerate((None, *({entry: value} for value in values))):
        random_storage(seed, provenance=provenance).save(tmp_path / f"{seed}.pt")
    with pytest.raises(StorageError, match=rf"cannot merge .*2\.pt with .*1\.pt: {entry}"):
        DatasetAttributionStorage.merge([tmp_path / f"{seed}.pt" for seed in range(3)])


def test_merge_of_nothing():
    with pytest.raises(StorageError, match="nothing to merge"):
        DatasetAttributionStorage.merge([])


def test_load_missing_file(tmp_path):
    with pytest.raises(StorageError, match=r"no result at .*nothing\.pt"):
        DatasetAttributionStorage.load(tmp_path / "nothing.pt")


def test_an_archive_that_is_one_of_several(tmp_path):
    random_storage().save(tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    end = content.rindex(b"PK\x05\x06")
    (tmp_path / "a.pt").write_bytes(content[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2) + content[end:])
    with pytest.raises(StorageError, match=r"cannot read .*a\.pt, which is truncated or no result"):
        DatasetAttributionStorage.load(tmp_path / "a.pt")


def test_load_truncated_file(tmp_path):
    random_storage().save(tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=r"cannot read .*a\.pt, which is truncated"):
        DatasetAttributionStorage.load(tmp_path / "a.pt")


def test_load_pickle_is_not_executed(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps(subprocess.run))
    with pytest.raises(StorageError, match="cannot read"):
        DatasetAttributionStorage.load(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("ci_sum"), r"a\.pt: not the result of a harvest: missing keys \['ci_sum'\]"),
        (lambda raw: raw.update(extra=1), r"unknown keys \['extra'\]"),
        (lambda raw: raw.update(embed_attr=3), r"of a wrong type are \['embed_attr'\]"),
        (lambda raw: raw.update(n_tokens_processed="many"), r"of a wrong type are \['n_tokens_processed'\]"),
        (lambda raw: raw.update(n_tokens_processed=-5), r"of a wrong type are \['n_tokens_processed'\]"),
        (lambda raw: raw.update(n_tokens_processed=float("nan")), r"of a wrong type are \['n_tokens_processed'\]"),
        (lambda raw: raw.update(w_unembed=torch.zeros(4)), r"of a wrong type are \['w_unembed'\]"),
        (lambda raw: raw["ci_sum"].update({"0.mlp.up": torch.tensor(1.0)}), r"of a wrong type are \['ci_sum'\]"),
        (lambda raw: raw.update(embed_token_count=torch.zeros(5)), r"of a wrong type are \['embed_token_count'\]"),
        (lambda raw: raw.update(provenance=5), r"of a wrong type are \['provenance'\]"),
        (lambda raw: raw.update(logit_sq_sum=torch.zeros(4)), r"logit_sq_sum: expected \(5,\), found \(4,\)"),
        (lambda raw: raw["embed_attr"].pop("0.attn.q"), "only one of attr and attr_abs: embed->0.attn.q"),
        (lambda raw: raw.update(embed_attr_abs={}), "embed->0.attn.q, embed->0.mlp.up; expected attr_abs of all edges"),
        (lambda raw: raw["ci_sum"].pop("0.mlp.up"), r"shapes do not belong together"),
    ],
)
def test_load_refuses_other_content(tmp_path, change, message):
    random_storage().save(tmp_path / "a.pt")
    raw = torch.load(tmp_path / "a.pt", weights_only=True)
    change(raw)
    torch.save(raw, tmp_path / "a.pt")
    with pytest.raises(StorageError, match=message):
        DatasetAttributionStorage.load(tmp_path / "a.pt")


def test_load_refuses_a_list(tmp_path):
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(StorageError, match=r"expected a mapping with keys .* found list"):
        DatasetAttributionStorage.load(tmp_path / "a.pt")


@pytest.mark.slow
def test_opening_does_not_read(tmp_path):
    """A 400 MB file opens and answers one row within a few megabytes of anonymous memory."""
    n = 10_000
    sums = random_sums()
    big = DatasetAttributionStorage.from_sums(sums, READ, unembedding(), 0.0)
    counts = {"0.mlp.up": n, "0.mlp.down": n}
    storage = DatasetAttributionStorage(
        **{
            **vars(big),
            "regular_attr": {"0.mlp.down": {"0.mlp.up": torch.ones(n, n)}},
            "regular_attr_abs": {"0.mlp.down": {"0.mlp.up": torch.ones(1, 1).expand(n, n)}},
            "embed_attr": {},
            "embed_attr_abs": {},
            "unembed_attr": {},
            "ci_sum": {layer: torch.ones(c) for layer, c in counts.items()},
            "component_act_sq_sum": {layer: torch.ones(c) for layer, c in counts.items()},
        }
    )
    storage.save(tmp_path / "big.pt")
    del storage
    script = f"""
import resource
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
def anonymous():
    return int(next(l for l in open('/proc/self/status') if l.startswith('RssAnon')).split()[1])
before = anonymous()
storage = DatasetAttributionStorage.load({str(tmp_path / "big.pt")!r})
assert abs(storage.get_top_sources('0.mlp.down:7', k=1)[0].value - {sums.n_tokens.item()} ** 0.5) < 1e-3
print(anonymous() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # kB


def test_save_on_a_full_disk_leaves_the_old_file(tmp_path):
    """A real refusal by the kernel: the process may not write files larger than 4 kB."""
    path = tmp_path / "a.pt"
    random_storage(0).save(path)
    before = path.read_bytes()
    script = f"""
import resource, signal
from lit_attr.errors import StorageError
from tests.storage.examples import random_storage
storage = random_storage(1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    storage.save({str(path)!r})
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert str(path) in done.stdout
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_constructor_refuses_shapes_that_do_not_belong_together():
    with pytest.raises(StorageError, match=r"embed_unembed_attr: expected \(6, 5\), found \(5, 6\)"):
        _changed("embed_unembed_attr", torch.zeros(TOPOLOGY.vocab_size, TOPOLOGY.d_model))
