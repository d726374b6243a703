import numpy as np
import pytest

from lit_attr.errors import StorageError
from lit_attr.storage.batch_coverage import Coverage
from lit_attr.storage.provenance import SCHEMA, Provenance


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
    assert Provenance.from_mapping(provenance).partial == expected


@pytest.mark.parametrize(("ids", "batches", "complete"), [([0, 1, 2], [[0, 2, 1]], True), ([0, 2], [[0, 2, 2]], False)])
def test_coverage_comes_back(ids, batches, complete):
    coverage = Coverage.of(np.array(ids), 3)
    assert coverage.to_mapping() == {"n_batches": 3, "batches": batches, "complete": complete}
    assert Coverage.from_mapping(coverage.to_mapping()) == coverage
    assert sorted([*ids, *coverage.missing()]) == [0, 1, 2]


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
        _ = Provenance({"coverage": coverage}).partial


def test_entries():
    dataset = {"tokenizer": "gpt2"}
    known = Provenance({"run_id": "s-x", "configuration": {"data": {"dataset": dataset}}, "not_targets": {"a": [1, 3]}})
    assert (known.run_id, known.tokenizer, known.schema) == ("s-x", "gpt2", 1)
    assert known.not_targets("a").tolist() == [1, 3]
    assert known.not_targets("b").tolist() == []


@pytest.mark.parametrize(
    "entries",
    [
        *(None, {}, {"configuration": None, "run_id": 3}, {"configuration": {"data": "x"}}),
        {"run_reference": "x" * 300, "configuration": {"data": {"dataset": {"tokenizer": "a\0"}}}},
    ],
)
def test_files_of_other_tools_record_nothing(entries):
    known = Provenance.from_mapping(entries)
    assert (known.run_id, known.run_reference, known.tokenizer, known.path_table, known.coverage) == (None,) * 5
    assert known.not_targets("0.mlp.up").tolist() == []


@pytest.mark.parametrize("indices", [3, "12", {"1": 2}, [1.5], [True], [[1]]])
def test_damaged_targets_are_named(indices):
    known = Provenance({"not_targets": {"a": indices, "b": [1]}})
    with pytest.raises(StorageError, match=r"provenance's not_targets of a is damaged: expected indices, found "):
        known.not_targets("a")
    assert known.not_targets("b").tolist() == [1]


def test_a_schema_of_the_future_is_refused():
    with pytest.raises(StorageError, match=rf"schema is {SCHEMA + 1}, .* reads up to {SCHEMA}"):
        Provenance.from_mapping({"schema": SCHEMA + 1})
    with pytest.raises(StorageError, match="the provenance's schema is damaged: expected a number, found '2'"):
        Provenance.from_mapping({"schema": "2"})


def test_a_damaged_path_table_is_named():
    known = Provenance({"configuration": {"model": {"path_table": {"embed": 1}}}})
    with pytest.raises(StorageError, match="the provenance's path_table is damaged: expected a table of paths"):
        _ = known.path_table
