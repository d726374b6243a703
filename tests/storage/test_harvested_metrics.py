import pytest
import torch

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.file_content import file_keys
from lit_attr.storage.harvested_metrics import HarvestedMetrics, Sample
from lit_attr.storage.provenance import Provenance
from lit_attr.storage.verify import verify
from tests.storage.examples import attr_alone, from_a_share, random_storage


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, HarvestedMetrics()),  # files before these entries, and those of other tools
        ({"metrics": "both"}, HarvestedMetrics("both")),
        ({"metrics": "attr"}, HarvestedMetrics("attr")),
        ({"metrics": "both", "abs_share": 0.1, "n_abs_tokens": 13}, HarvestedMetrics("both", 0.1, 13)),
    ],
)
def test_metrics_come_back(entries, expected):
    assert Provenance.from_mapping(entries).harvested_metrics == expected
    assert expected.to_entries() == (entries or {"metrics": "both"})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"metrics": "attr_abs"}, r"metrics is damaged: expected one of \['attr', 'both'\], found 'attr_abs'"),
        ({"metrics": ["attr"]}, "metrics is damaged: .* found .'attr'"),
        *(({"abs_share": x, "n_abs_tokens": 1}, "abs_share is damaged: .*above 0") for x in (0, 1.5, "1", True, -0.1)),
        ({"abs_share": float("nan"), "n_abs_tokens": 1}, "abs_share is damaged: expected a number above 0"),
        ({"metrics": "attr", "abs_share": 0.5, "n_abs_tokens": 1}, "abs_share is damaged: expected none beside"),
        *(({"abs_share": 0.5, "n_abs_tokens": x}, "n_abs_tokens is damaged: expected a n") for x in (None, -1, 1.0)),
        ({"n_abs_tokens": 3}, "n_abs_tokens is damaged: expected none beside abs_share None, found 3"),
    ],
)
def test_damaged_metrics_are_named(entries, message):
    with pytest.raises(StorageError, match=f"the provenance's {message}"):
        _ = Provenance(entries).harvested_metrics


def test_a_result_of_attr_alone_answers_as_one_of_both(tmp_path):
    path = tmp_path / "a.pt"
    random_storage().save(tmp_path / "both.pt")
    attr_alone().save(path)
    both, alone = (DatasetAttributionStorage.load(file) for file in (tmp_path / "both.pt", path))
    assert (both.metrics, alone.metrics) == (("attr", "attr_abs"), ("attr",))
    assert list(torch.load(path, weights_only=True)) == [*file_keys(both)]
    for key in ("0.mlp.up:2", "output:4"):
        assert alone.get_top_sources(key) == both.get_top_sources(key)
    assert alone.get_top_targets("embed:0") == both.get_top_targets("embed:0")
    assert alone.get_attribution("embed:2", "0.mlp.up:1") == both.get_attribution("embed:2", "0.mlp.up:1")
    assert alone.has_source("embed:0")
    assert alone.has_target("0.attn.q:0")
    assert verify(path)[5].startswith("metrics: attr alone; attr_abs was not harvested (--model.metrics attr): ask for")


@pytest.mark.parametrize(
    ("provenance", "why"),
    [
        ({"metrics": "attr"}, "--model.metrics attr): ask for attr, or harvest with --model.metrics both"),
        (None, "the result has no sums of it): ask for attr"),  # as another tool may write it
        ({"metrics": "both", "abs_share": 0.1, "n_abs_tokens": 0}, "--model.abs_share 0.1 chose none of the sequences"),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda storage: storage.get_top_sources("0.mlp.up:2", metric="attr_abs"),
        lambda storage: storage.get_top_sources("nowhere:2", metric="attr_abs"),
        lambda storage: storage.get_top_targets("output:2", metric="attr_abs"),
        lambda storage: storage.get_attribution("embed:0", "0.mlp.up:2", metric="attr_abs"),
        lambda storage: storage.get_attribution("embed:0", "output:2", metric="attr_abs"),
        lambda storage: storage.sample("attr_abs"),
    ],
)
def test_what_was_not_harvested_is_no_answer(ask, provenance, why):
    with pytest.raises(ConfigurationError) as refusal:
        ask(attr_alone(provenance=provenance))
    assert f"attr_abs was not harvested ({why}" in str(refusal.value)


def test_a_share_is_known_of_its_metric_alone(tmp_path):
    storage = from_a_share(0.25, 3)
    assert storage.sample("attr") is None
    assert storage.sample("attr_abs") == Sample(0.25, 3, 10)
    assert str(Sample(0.1, 13_107, 131_072)) == "attr_abs from 10 % of the sequences (13,107 of 131,072 tokens)"
    storage.save(tmp_path / "a.pt")
    assert verify(tmp_path / "a.pt")[5] == "metrics: attr; attr_abs from 25 % of the sequences (3 of 10 tokens)"
    assert random_storage().sample("attr_abs") is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"metrics": "attr"}, "metrics is damaged: expected both, since there are sums of attr_abs, found 'attr'"),
        ({"abs_share": 0.1, "n_abs_tokens": 0}, "n_abs_tokens is damaged: expected a number from 1 to 10, found 0"),
        ({"abs_share": 0.1, "n_abs_tokens": 11}, "n_abs_tokens is damaged: expected a number from 1 to 10, found 11"),
    ],
)
def test_entries_that_are_not_true_of_the_sums(tmp_path, entries, message):
    storage = random_storage(provenance=entries)
    assert storage.sample("attr") is None  # damage stands in the way of nothing else
    with pytest.raises(StorageError, match=message):
        storage.sample("attr_abs")
    storage.save(tmp_path / "a.pt")
    with pytest.raises(StorageError, match=rf"a\.pt: the provenance's {message}"):
        verify(tmp_path / "a.pt")


def test_merge_adds_shares_and_attr_alone(tmp_path):
    for results in ([attr_alone(0), attr_alone(1)], [from_a_share(0.25, 3, 0), from_a_share(0.25, 4, 1)]):
        for number, result in enumerate(results):
            result.save(tmp_path / f"{number}.pt")
        merged = DatasetAttributionStorage.merge([tmp_path / "0.pt", tmp_path / "1.pt"])
        assert merged.metrics == results[0].metrics
        assert merged.provenance["metrics"] == results[0].provenance["metrics"]
    assert merged.sample("attr_abs") == Sample(0.25, 7, 25)
    total = sum(result.regular_attr_abs["0.mlp.up"]["0.attn.q"] for result in results)
    torch.testing.assert_close(merged.regular_attr_abs["0.mlp.up"]["0.attn.q"], total.float())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (attr_alone(1), "metrics attr, expected attr and attr_abs"),
        (from_a_share(0.1, 1, 1), "abs_share 0.1, expected 0.25"),
        (random_storage(1), "abs_share 1.0, expected 0.25"),  # files before there were shares are of all sequences
    ],
)
def test_merge_refuses_other_metrics_and_shares(tmp_path, other, message):
    from_a_share(0.25, 3).save(tmp_path / "0.pt")
    other.save(tmp_path / "1.pt")
    with pytest.raises(StorageError, match=rf"cannot merge .*1\.pt with .*0\.pt: {message}"):
        DatasetAttributionStorage.merge([tmp_path / "0.pt", tmp_path / "1.pt"])
