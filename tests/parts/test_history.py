from lit_attr.parts.history import record_generation, recorded_provenance
from tests.parts.harvests import begin, commit

FIRST = {
    "created": "monday",
    "engine": "auto",
    "data_shape": [4, 8],
    "not_targets": {"a": [1]},
    "targets": {"rule": "all"},
}


def test_the_newest_generation_describes_the_result_and_each_has_a_line(tmp_path):
    generation = begin(tmp_path, 2, 4)
    record_generation(generation, {"engine": "of a worker that was killed before it committed"})
    record_generation(generation, FIRST)
    commit(generation, 0)
    record_generation(generation, {"engine": "of a worker that came later"})
    generation = begin(tmp_path, 1, 10)
    later = {"created": "tuesday", "engine": "autograd", "data_shape": [10, 8], "not_targets": {}, "targets": None}
    record_generation(generation, later)
    lines = [
        {"generation": 1, "n_batches": 4, "world_size": 2, "created": "monday", "engine": "auto"},
        {"generation": 2, "n_batches": 10, "world_size": 1, "created": "tuesday", "engine": "autograd"},
    ]
    versions = {"lit_attr": "1", "torch": "2"}
    assert recorded_provenance([generation], FIRST, [versions, versions, {"lit_attr": "1"}]) == {
        **FIRST,
        "schema": 2,
        "software": [versions, {"lit_attr": "1"}],
        "engine": "autograd",
        "data_shape": [10, 8],
        "generations": [{**line, "lit_attr_version": None} for line in lines],
    }


def test_generations_that_recorded_nothing(tmp_path):
    """Those of the version before, and one that was stopped before it began."""
    begin(tmp_path, 1, 4)
    generation = begin(tmp_path, 1, 10)
    recorded = recorded_provenance([generation], FIRST, [])
    assert [line["created"] for line in recorded["generations"]] == ["monday", None]
    assert [line["n_batches"] for line in recorded["generations"]] == [4, 10]
    assert "data_shape" not in recorded, "it would be that of four batches"
    assert recorded["engine"] == "auto"
