"""What is written down of looks at a harvest: read again, and checked."""

import json

import pytest

from lit_attr.errors import StorageError
from lit_attr.parts.looks import Look, read_looks, record_look
from lit_attr.topology.words import LOOKS_FILE

LOOK = Look(64, 0.975, 10, 5, 1, 0.5, 0.95, 0.05)


def test_looks_take_the_place_of_later_ones(tmp_path):
    assert read_looks(tmp_path) == []
    looks = [Look(**{**LOOK.entries(), "n_batches": n}) for n in (64, 128, 256)]
    for look in looks:
        record_look(tmp_path, look)
    assert read_looks(tmp_path) == looks
    record_look(tmp_path, looks[1])
    assert read_looks(tmp_path) == looks[:2]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_batches", -3, "n_batches: Input should be greater than or equal to 1, found -3"),
        ("n_separated", 9, "expected at most 5 separated targets, found 9"),
        ("relative_error", float("nan"), "relative_error: Input should be a finite number"),
        ("level", 1.0, "level: Input should be less than 1, found 1.0"),
        ("k", "10", "k: Input should be a valid integer, found '10'"),
    ],
)
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path, name, value, message):
    (tmp_path / LOOKS_FILE).write_text(json.dumps({"looks": [{**LOOK.entries(), name: value}]}))
    with pytest.raises(StorageError) as caught:
        read_looks(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).endswith("without this file the harvest is looked at anew")
