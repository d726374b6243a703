import os
import re

import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.files.seal import check_seal
from lit_attr.parts.merge import merge_harvest
from lit_attr.storage.verify import verify
from lit_attr.storage.write import write_result
from tests.parts.harvests import commit, complete_harvest, sums_of
from tests.storage.examples import READ, random_storage, unembedding


@pytest.fixture
def result(tmp_path):
    complete_harvest(tmp_path)
    return merge_harvest(tmp_path)


def write(path, sums=None, w_unembed=None, **provenance):
    write_result(
        path,
        {"part": sums or sums_of([0, 1])},
        READ,
        unembedding() if w_unembed is None else w_unembed,
        0.0,
        provenance or {},
    )
    return path


def test_what_is_in_order_is_said(result):
    assert verify(result) == [
        f"digest: sha256 {check_seal(result)}",
        "shapes: 18 sums belong together",
        "finite: all entries",
        "standard errors: none",
        "tokens: 1023, as counted one by one",
        "metrics: attr and attr_abs",
        "written by: not recorded",
        "coverage: all 10 batches",
    ]


def test_files_of_other_tools(tmp_path):
    random_storage().save(tmp_path / "a.pt")
    lines = verify(tmp_path / "a.pt")
    assert lines[0] == "digest: none, the file was written by another tool or version"
    assert lines[-1] == "coverage: not recorded, the file was written by another tool or version"


def test_every_flipped_byte_shows(result):
    """A seal that is damaged itself is not taken for none."""
    content = result.read_bytes()
    places = [*range(0, len(content) - 100, 97), *range(len(content) - 100, len(content))]
    with result.open("r+b", buffering=0) as file:
        for place in places:
            os.pwrite(file.fileno(), bytes([content[place] ^ 16]), place)
            with pytest.raises(StorageError, match="damaged"):
                verify(result)
            os.pwrite(file.fileno(), content[place : place + 1], place)
    verify(result)


@pytest.mark.parametrize("cut", [1, 50, 81, 83, 104, 2000])
def test_truncated(result, cut):
    content = result.read_bytes()
    result.write_bytes(content[:-cut])
    with pytest.raises(StorageError, match=r"dataset_attributions\.pt"):
        verify(result)


def test_a_seal_cut_off_whole_is_reported_as_none(result):
    content = result.read_bytes()
    result.write_bytes(content[:-82])
    assert verify(result)[0].startswith("digest: none")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("name", ["embed_attr[0.mlp.up]", "w_unembed"])
def test_entries_that_are_not_finite(tmp_path, value, place, name, monkeypatch):
    """In a file of another tool or version: merging refuses them."""
    monkeypatch.setattr("lit_attr.storage.verify.CHUNK", 4)
    storage = random_storage()
    tensors = {**dict(storage.named_sums()), "w_unembed": storage.w_unembed}
    tensors[name][(place,) * tensors[name].ndim] = value
    storage.save(tmp_path / "a.pt")
    with pytest.raises(StorageError, match=rf"a\.pt: {re.escape(name)} has entries that are not finite"):
        verify(tmp_path / "a.pt")


def test_wrong_number_of_tokens(tmp_path):
    sums = sums_of([0, 1])
    sums.n_tokens.add_(1)
    with pytest.raises(StorageError, match=r"a\.pt: 4 tokens in all, but 3 counted one by one"):
        verify(write(tmp_path / "a.pt", sums))


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"n_batches": 3, "batches": [[0, 1, 1]], "complete": True}, r"complete is True, but batches 1 \(2\) are miss"),
        ({"n_batches": 3, "batches": [[0, 2, 1]], "complete": False}, r"complete is False, but batches 0 \(\) are"),
        (
            {"n_batches": 3, "batches": [[0, 5, 1]], "complete": True},
            r"of 3 batches, its coverage lists others: 3 \(3-5\)",
        ),
        ({"n_batches": 3, "batches": [[0, 2, 1], [1, 1, 1]], "complete": True}, "its coverage lists batches twice"),
        ({"n_batches": 3, "complete": True}, "coverage is damaged: expected complete"),
        ({"n_batches": 3, "batches": [[0, 2]], "complete": True}, "coverage is damaged: expected complete"),
        ({"n_batches": 3, "batches": [[0, 2, 0]], "complete": True}, "coverage is damaged: expected complete"),
        ({"n_batches": "x", "batches": [], "complete": True}, "coverage is damaged: expected complete"),
        ([3], "coverage is damaged: expected complete"),
    ],
)
def test_coverage_that_cannot_be(tmp_path, known, message):
    with pytest.raises(StorageError, match=rf"a\.pt: (the provenance's )?{message}"):
        verify(write(tmp_path / "a.pt", coverage=known))


def test_missing_empty_and_foreign_files(tmp_path):
    for path in (tmp_path / "a.pt", tmp_path):
        with pytest.raises(StorageError, match="no result at"):
            verify(path)
    (tmp_path / "a.pt").write_bytes(b"")
    with pytest.raises(StorageError, match=r"a\.pt is damaged"):
        verify(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"x" * 300)
    with pytest.raises(StorageError, match=r"a\.pt is damaged: it ends neither as an archive does, nor in a seal"):
        verify(tmp_path / "a.pt")
    torch.save({"x": 1}, tmp_path / "a.pt")
    with pytest.raises(StorageError, match=r"a\.pt: not the result of a harvest"):
        verify(tmp_path / "a.pt")
    part = commit(complete_harvest(tmp_path / "x"), 0)
    with pytest.raises(StorageError, match=r"rank_0\.pt, which is truncated or no result of a harvest"):
        verify(part)


def test_a_file_that_cannot_be_read(result, monkeypatch):
    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(StorageError, match=r"cannot read .*Input/output error"):
        verify(result)
