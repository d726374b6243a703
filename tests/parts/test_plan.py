import pytest

from lit_attr.errors import StorageError
from lit_attr.files.json_file import read_json
from lit_attr.parts.plan import Plan
from tests.parts.harvests import PLAN


def test_plan_comes_back_and_is_written_once(tmp_path):
    plan = Plan({"a": 1, "b": [1, None], "c": "x"}, 7, "123")
    plan.publish(tmp_path)
    assert Plan.load(tmp_path) == plan
    assert Plan.load(tmp_path).digest == plan.digest
    with pytest.raises(FileExistsError):
        Plan({}, 1).publish(tmp_path)
    assert Plan.load(tmp_path) == plan


def test_digest_is_of_the_entries_alone():
    assert Plan({"a": 1, "b": 2}, 3).digest == Plan({"b": 2, "a": 1}, 4, "job").digest
    assert Plan({"a": 1}, 3).digest != Plan({"a": 2}, 3).digest


def test_differences_are_named_with_both_values():
    assert PLAN.differences({"weights": "w", "batch_size": 4}) == []
    assert PLAN.differences({"weights": "v", "extra": 1}) == [
        "weights: the harvest has 'w', this command 'v'",
        "batch_size: the harvest has 4, this command None",
        "extra: the harvest has None, this command 1",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Invalid JSON: EOF"),
        (b"\xff", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON: recursion limit exceeded"),
        (b"[]", r"Input should be an object, found \[\]"),
        (b'{"format": 1}', "entries: Field required, n_batches: Field required"),
        (
            b'{"format": 1, "entries": {}, "n_batches": "1", "job": null}',
            "n_batches: Input .* int.* '1'",
        ),
        (b'{"format": 5, "entries": {}, "n_batches": 1000000000}', "n_batches: Input should be less than .*000000000"),
    ],
)
def test_damaged_plans(tmp_path, content, message):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(StorageError, match=rf"plan\.json is damaged: .*{message}"):
        Plan.load(tmp_path)


@pytest.mark.parametrize("stored", [b'{"format": 3,', b'{"format": 4,', b"{"])
def test_plans_of_other_versions(tmp_path, stored):
    (tmp_path / "plan.json").write_bytes(stored + b'"entries": {}, "n_batches": 1}')
    with pytest.raises(
        StorageError, match=r"plan\.json: expected a harvest in format 5, found [134], .* the version of"
    ):
        Plan.load(tmp_path)


@pytest.mark.parametrize(
    ("entries", "metrics", "abs_share"),
    [({}, "both", 1.0), ({"metrics": "both", "abs_share": 0.1}, "both", 0.1), ({"metrics": "attr"}, "attr", 1.0)],
)
def test_metrics_and_the_share_of_attr_abs(entries, metrics, abs_share):
    plan = Plan(entries, 1)
    assert (plan.metrics, plan.abs_share) == (metrics, abs_share)


def test_missing_plan(tmp_path):
    with pytest.raises(StorageError, match=r"cannot read .*plan\.json"):
        read_json(tmp_path / "plan.json")
