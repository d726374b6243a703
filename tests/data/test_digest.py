"""The digest of all rows, and what is remembered of it beside the file."""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lit_attr.data import digest as module
from lit_attr.data.digest import RowDigests
from lit_attr.data.row_source import RowSource
from lit_attr.errors import DataError
from lit_attr.files.identity import FileIdentity
from tests.toys import random_tokens

BLOCK = 128  # rows


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES", BLOCK * 8 * 8)
    monkeypatch.setattr(module, "_SETTLED", -1)


@pytest.fixture
def rows():
    return random_tokens(1500).numpy()


@pytest.fixture
def save(tmp_path):
    def save(rows, name="t.npy"):
        np.save(tmp_path / name, rows)
        return tmp_path / name

    return save


@pytest.fixture
def computed(monkeypatch):
    """First rows of the blocks whose digests are computed."""
    firsts = []
    compute = RowDigests._digest

    def counting(self, first, end):
        if end - first == BLOCK:
            firsts.append(first)
        return compute(self, first, end)

    monkeypatch.setattr(RowDigests, "_digest", counting)
    return firsts


def digest(path, n_rows=1500):
    return RowSource.of_file(path).digest(n_rows)


def memory(path):
    return path.with_name(f".{path.name}.digest.json")


def by_definition(rows):
    at_once = BLOCK * 64 // (rows.shape[1] * rows.itemsize)
    blocks = [rows[first : first + at_once] for first in range(0, len(rows) // at_once * at_once, at_once)]
    blocks.append(rows[len(blocks) * at_once :])
    all_of_them = b"".join(hashlib.sha256(block.tobytes()).digest() for block in blocks)
    return hashlib.sha256(f"{len(rows)} {rows.shape[1]} {rows.dtype.str}\n".encode() + all_of_them).hexdigest()


@pytest.mark.parametrize("n_rows", [1, BLOCK - 1, BLOCK, BLOCK + 1, 1500])
def test_is_of_the_first_rows_whichever_way_they_lie(save, rows, n_rows):
    expected = by_definition(rows[:n_rows])
    for layout in (rows, np.asfortranarray(rows)):
        for _ in ("computed", "remembered"):
            assert digest(save(layout), n_rows) == expected
    as_32_bit = rows[:n_rows].astype(np.int32)
    assert digest(save(as_32_bit), n_rows) == by_definition(as_32_bit) != expected


def test_every_row_counts(save, rows):
    """1,024 of these rows were looked at before."""
    source = RowSource.of_file(save(rows))
    passed_over = np.setdiff1d(np.arange(1500), source.sample(1500))
    assert len(passed_over) == 476
    seen = {source.digest(1500)}
    for row in (*passed_over[::100], 0, BLOCK - 1, BLOCK, 1499):
        rows[row, row % 8] += 1
        seen.add(digest(save(rows)))
    assert len(seen) == 10


def test_is_computed_once_and_only_as_far_as_needed(save, rows, computed):
    path = save(rows)
    first = digest(path, 3 * BLOCK)
    assert sorted(computed) == [0, BLOCK, 2 * BLOCK]
    whole = digest(path)
    assert len(computed) == 11
    computed.clear()
    assert (digest(path, 3 * BLOCK), digest(path)) == (first, whole)
    assert computed == []
    source = RowSource.of_file(path)
    memory(path).unlink()
    assert [source.digest(1500) for _ in range(2)] == [whole] * 2
    assert len(computed) == 11, "the process remembers it, too"


def test_of_several_who_begin_at_once_one_computes(save, rows, computed):
    path = save(rows)
    sources = [RowSource.of_file(path) for _ in range(8)]  # numpy reads headers by Python's parser: not in threads
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda source: source.digest(1500), sources))) == 1
    assert len(computed) == 11


@pytest.mark.parametrize("change", ["copied", "touched", "rewritten at the same time", "grown"])
def test_what_is_remembered_of_another_file_does_not_count(save, rows, computed, tmp_path, change):
    path = save(rows)
    digest(path)
    before = path.stat()
    if change == "copied":  # with what is remembered of it
        path = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}_copy")) / path.name
        assert memory(path).exists()
        assert path.stat().st_mtime_ns == before.st_mtime_ns
    elif change == "grown":
        rows = np.concatenate([rows, rows])
        np.save(path, rows)
    else:
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x00" if change == "touched" else b"\x01")
        rows = np.load(path)
        if change == "rewritten at the same time":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    computed.clear()
    assert digest(path, len(rows)) == by_definition(rows)
    assert len(computed) == len(rows) // BLOCK


@pytest.mark.parametrize("content", ["", "[]", "{}", '"blocks"', "null"])
def test_damaged_memory_is_written_anew(save, rows, computed, content):
    path = save(rows)
    expected = digest(path)
    good = json.loads(memory(path).read_text())
    for text in (content, json.dumps({**good, "blocks": good["blocks"][:-2]}), json.dumps({**good, "blocks": 3})):
        memory(path).write_text(text)
        assert digest(path) == expected
        assert json.loads(memory(path).read_text()) == good
    assert len(computed) == 4 * 11


def test_nothing_is_remembered_of_a_file_that_was_just_changed_nor_where_that_cannot_be(save, rows, monkeypatch):
    path = save(rows)
    expected = by_definition(rows)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_SETTLED", 10**15)
        RowSource.of_file(path).remember_digest(1500)
        assert digest(path) == expected
    with monkeypatch.context() as patch:
        patch.setattr(module, "_time_of", lambda _: None)  # as in a folder that is read-only
        RowSource.of_file(path).remember_digest(1500)
        assert digest(path) == expected
    assert os.listdir(path.parent) == [path.name]
    monkeypatch.setattr(module, "_SETTLED", 10**9)
    monkeypatch.setattr(module, "_LONG", 0)
    save(rows)
    RowSource.of_file(path).remember_digest(1500)
    assert memory(path).exists(), "it was waited for"


def test_a_file_that_changes_meanwhile(save, rows, monkeypatch):
    path = save(rows)
    compute = RowDigests._digest

    def changing(self, first, end):
        os.utime(path)
        return compute(self, first, end)

    monkeypatch.setattr(RowDigests, "_digest", changing)
    with pytest.raises(DataError, match=r"t\.npy was changed after it was opened"):
        digest(path)
    assert not memory(path).exists()


def test_changes_of_what_was_opened(save, rows, tmp_path):
    path = save(rows)
    source = RowSource.of_file(path)
    cache = RowSource(path, FileIdentity.of(path), rows, may_grow=True)
    source.check_unchanged()
    path.chmod(0o600)
    path.with_name("another name").hardlink_to(path)
    source.check_unchanged()
    with path.open("ab") as file:
        file.write(b"more")
    cache.check_unchanged()
    for what, change in {
        "changed": lambda: None,
        "replaced": lambda: save(rows, "new.npy").rename(path),
        "removed": path.unlink,
    }.items():
        change()
        with pytest.raises(DataError, match=rf"the data .*t\.npy was {what} after it was opened"):
            source.check_unchanged()
    with pytest.raises(DataError, match="was removed"):
        cache.check_unchanged()
