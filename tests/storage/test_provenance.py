import pytest

from lit_attr.errors import StorageError
from lit_attr.storage.coverage import missing_batches
from lit_attr.storage.provenance import entry


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        (None, None),
        ({}, None),
        ({"coverage": {"complete": True, "n_batches": 4, "batches": [[0, 3, 1]]}}, None),
        ({"coverage": {"complete": False, "n_batches": 9, "batches": [[0, 6, 2], [7, 7, 1]]}}, "5 of 9 batches"),
        (
            {"coverage": {"complete": False, "n_batches": 10**13, "batches": [[0, 10**12 - 1, 1]]}},
            f"{10**12} of {10**13} batches",
        ),
        ({"coverage": {"complete": False, "n_batches": 3, "batches": []}}, "0 of 3 batches"),
    ],
)
def test_what_is_missing(provenance, expected):
    assert missing_batches(provenance) == expected


@pytest.mark.parametrize(
    "coverage",
    [
        *("all", 1, [], {}, {"complete": False}, {"complete": False, "n_batches": 3, "batches": [1]}),
        {"complete": False, "n_batches": float("inf"), "batches": []},
        {"complete": False, "n_batches": 3, "batches": [[0, 3, 0]]},
        {"complete": False, "n_batches": 3, "batches": [[0, 10**30, 1]]},
    ],
)
def test_coverage_that_says_nothing(coverage):
    with pytest.raises(StorageError, match=r"the provenance's coverage is damaged: expected complete, n_batches"):
        missing_batches({"coverage": coverage})


def test_entries():
    provenance = {"a": {"b": {"c": 1}}, "d": "x", "e": None}
    assert entry(provenance, "a", "b", "c") == 1
    assert entry(provenance, "a", "b") == {"c": 1}
    for names in (("a", "c"), ("a", "b", "c", "d"), ("d", "x"), ("e", "x"), ("f",)):
        assert entry(provenance, *names) is None
    assert entry(None, "a") is None
