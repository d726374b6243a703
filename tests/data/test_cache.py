"""Rows are tokenized once, as many as are needed; nothing that happens in between changes them."""

import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

import datasets
import numpy as np
import pytest

from lit_attr.data.cache import TokenCache
from lit_attr.data.spec import DatasetSpec
from lit_attr.errors import DataError, StorageError
from lit_attr.files.lock import locked
from tests.data import (
    LEAST_TOKENS,
    CountingTokenizer,
    id_lists,
    make_spec,
    offline,  # noqa: F401
    specified_batches,
    texts,
    write_rows,
    write_tokenizer,
)

# Three map batches each.
STREAM = {"streaming": True}
IN_ORDER = {"shuffle_each_epoch": False}
NEEDS_ALL = {}


@pytest.fixture
def stories(tmp_path):
    return write_rows(tmp_path / "data.jsonl", text=texts(2500))


@pytest.fixture
def counting(monkeypatch):
    return use_tokenizer(monkeypatch)


def use_tokenizer(monkeypatch, fail_at: int | None = None) -> CountingTokenizer:
    tokenizer = CountingTokenizer(fail_at)
    monkeypatch.setattr("lit_attr.data.rows.load_tokenizer", tokenizer)
    return tokenizer


def prepared(spec: DatasetSpec, root: Path, n_rows: int | None = None) -> TokenCache:
    cache = TokenCache(spec, root)
    cache.prepare(n_rows)
    return cache


def content(cache: TokenCache) -> np.ndarray:
    rows, order = cache.open()
    return rows if order is None else rows[order]


def tokens_file(cache: TokenCache) -> bytes:
    return (cache.folder / "tokens.bin").read_bytes()


# How much is tokenized


@pytest.mark.parametrize(("options", "n_calls"), [(STREAM, 1), (IN_ORDER, 1), (NEEDS_ALL, 3)])
def test_only_as_many_texts_are_tokenized_as_are_needed(stories, tmp_path, counting, options, n_calls):
    cache = prepared(make_spec(stories, **options), tmp_path / "c", n_rows=2)
    assert len(counting.calls) == n_calls
    assert len(content(cache)) >= 2


@pytest.mark.parametrize("options", [STREAM, IN_ORDER, {}])
def test_only_as_many_token_lists_are_read_as_are_needed(tmp_path, options):
    path = write_rows(tmp_path / "data.jsonl", text=id_lists(2500))
    cache = prepared(make_spec(path, is_tokenized=True, **options), tmp_path / "c", n_rows=2)
    assert len(content(cache)) == 1000


@pytest.mark.parametrize(("more", "n_calls"), [(0, 1), (1, 2)])
def test_a_map_batch_that_is_just_enough_is_the_last(stories, tmp_path, counting, more, n_calls):
    spec = make_spec(stories, **STREAM)
    n_rows = len(content(prepared(spec, tmp_path / "a", n_rows=1)))
    counting.calls.clear()
    prepared(spec, tmp_path / "b", n_rows=n_rows + more)
    assert len(counting.calls) == n_calls


@pytest.mark.parametrize("options", [STREAM, IN_ORDER, NEEDS_ALL])
def test_whole_dataset(stories, tmp_path, options):
    spec = make_spec(stories, **options)
    (expected,) = specified_batches(asdict(spec), 10**6)
    assert np.array_equal(content(prepared(spec, tmp_path / "c")), expected.numpy())


def test_more_rows_than_there_are(stories, tmp_path):
    spec = make_spec(stories, **STREAM)
    whole = prepared(spec, tmp_path / "a")
    assert tokens_file(prepared(spec, tmp_path / "b", n_rows=10**9)) == tokens_file(whole)


@pytest.mark.parametrize("options", [STREAM, IN_ORDER])
def test_an_extension_goes_on_where_the_cache_is(stories, tmp_path, counting, options):
    spec = make_spec(stories, **options)
    whole = prepared(spec, tmp_path / "whole")
    in_order = list(counting.calls)
    counting.calls.clear()
    cache = prepared(spec, tmp_path / "c", n_rows=1)
    first = content(cache).copy()
    for n_rows in (len(first) + 1, None):
        cache.prepare(n_rows)
        assert np.array_equal(content(cache)[: len(first)], first)
    assert counting.calls == in_order
    assert tokens_file(cache) == tokens_file(whole)


@pytest.mark.parametrize("options", [STREAM, IN_ORDER, NEEDS_ALL])
def test_a_complete_cache_never_opens_the_dataset_again(stories, tmp_path, monkeypatch, options):
    spec = make_spec(stories, **options)
    prepared(spec, tmp_path / "c")
    monkeypatch.setattr(datasets, "load_dataset", None)
    for n_rows in (1, 10**9, None):
        prepared(spec, tmp_path / "c", n_rows)


def test_a_cache_with_enough_rows_does_not_open_the_dataset(stories, tmp_path, monkeypatch):
    spec = make_spec(stories, **STREAM)
    n_rows = len(content(prepared(spec, tmp_path / "c", n_rows=1)))
    monkeypatch.setattr(datasets, "load_dataset", None)
    prepared(spec, tmp_path / "c", n_rows)
    with pytest.raises(DataError, match="cannot open the dataset"):
        prepared(spec, tmp_path / "c", n_rows + 1)


def test_rows_are_mapped_not_read(stories, tmp_path):
    rows, _ = prepared(make_spec(stories), tmp_path).open()
    assert isinstance(rows, np.memmap)
    assert rows.dtype == np.dtype("<i4")
    assert not rows.flags.writeable


def test_a_reader_is_not_disturbed_by_an_extension(stories, tmp_path):
    cache = prepared(make_spec(stories, **STREAM), tmp_path / "c", n_rows=1)
    rows, _ = cache.open()
    before = rows.copy()
    cache.prepare(None)
    assert np.array_equal(rows, before)


# Interruptions


@pytest.mark.parametrize("options", [STREAM, IN_ORDER, NEEDS_ALL])
@pytest.mark.parametrize("fail_at", [0, 1, 2])
def test_an_interrupted_cache_ends_as_an_uninterrupted_one(stories, tmp_path, monkeypatch, options, fail_at):
    spec = make_spec(stories, **options)
    whole = prepared(spec, tmp_path / "whole")
    use_tokenizer(monkeypatch, fail_at)
    with pytest.raises(KeyboardInterrupt):
        prepared(spec, tmp_path / "c")
    rest = use_tokenizer(monkeypatch)
    cache = prepared(spec, tmp_path / "c")
    assert len(rest.calls) == 3 - fail_at
    assert tokens_file(cache) == tokens_file(whole)
    assert np.array_equal(content(cache), content(whole))


def test_an_interrupted_cache_whose_order_needs_all_rows_has_never_enough(stories, tmp_path, monkeypatch):
    spec = make_spec(stories, **NEEDS_ALL)
    whole = content(prepared(spec, tmp_path / "whole"))
    use_tokenizer(monkeypatch, fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        prepared(spec, tmp_path / "c")
    use_tokenizer(monkeypatch)
    assert np.array_equal(content(prepared(spec, tmp_path / "c", n_rows=1)), whole)


def test_an_interruption_between_rows_and_progress(stories, tmp_path, monkeypatch):
    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    spec = make_spec(stories, **NEEDS_ALL)
    whole = prepared(spec, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("lit_attr.data.cache.TokenCache._publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepared(spec, tmp_path / "c")
    cache = TokenCache(spec, tmp_path / "c")
    assert len(tokens_file(cache)) > 0
    cache.prepare(None)
    assert tokens_file(cache) == tokens_file(whole)


@pytest.mark.parametrize("garbage", [b"x", b"half a row", b"many rows" * 999999])
def test_what_lies_behind_the_valid_rows_is_ignored(stories, tmp_path, garbage):
    spec = make_spec(stories, **STREAM)
    whole = prepared(spec, tmp_path / "whole")
    cache = prepared(spec, tmp_path / "c", n_rows=1)
    before = content(cache).copy()
    with open(cache.folder / "tokens.bin", "ab") as file:
        file.write(garbage)
    assert np.array_equal(content(cache), before)
    cache.prepare(None)
    assert tokens_file(cache) == tokens_file(whole)


def test_a_cache_that_lost_its_progress_begins_anew(stories, tmp_path):
    cache = prepared(make_spec(stories), tmp_path / "c")
    before = tokens_file(cache)
    (cache.folder / "progress.json").unlink()
    cache.prepare(None)
    assert tokens_file(cache) == before


@pytest.mark.parametrize("n_bytes", [0, 1000, -1])
def test_truncated_rows(stories, tmp_path, n_bytes):
    cache = prepared(make_spec(stories, **STREAM), tmp_path / "c", n_rows=1)
    os.truncate(cache.folder / "tokens.bin", n_bytes % len(tokens_file(cache)))
    for use in (cache.open, lambda: cache.prepare(None)):
        with pytest.raises(DataError, match=rf"truncated token cache .*tokens\.bin: delete {cache.folder} to make it"):
            use()


def test_rows_that_are_gone(stories, tmp_path):
    cache = prepared(make_spec(stories), tmp_path / "c")
    (cache.folder / "tokens.bin").unlink()
    with pytest.raises(DataError, match=rf"truncated token cache .*tokens\.bin: delete {cache.folder} to make it anew"):
        cache.open()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b'{"n_rows": 12, "n_ba',
        b"[]",
        b"\xff\xfe",
        b'{"rows": 1}',
        b'{"n_rows": "12", "n_batches": 1, "complete": false}',
        b'{"n_rows": null, "n_batches": 1, "complete": true}',
    ],
)
def test_damaged_progress(stories, tmp_path, damaged):
    cache = prepared(make_spec(stories, **STREAM), tmp_path / "c", n_rows=1)
    (cache.folder / "progress.json").write_bytes(damaged)
    message = rf"damaged token cache: .*progress\.json is damaged: .*; delete {cache.folder} to make it anew"
    for use in (cache.open, lambda: cache.prepare(5)):
        with pytest.raises(DataError, match=message):
            use()


def test_an_error_gives_the_lock_back(stories, tmp_path, monkeypatch):
    cache = TokenCache(make_spec(stories), tmp_path / "c")
    use_tokenizer(monkeypatch, fail_at=1)
    with pytest.raises(KeyboardInterrupt):
        cache.prepare(None)
    monkeypatch.setattr("lit_attr.files.lock._PATIENCE", 0.0)
    with locked(cache.folder / "lock", "waiting"):
        pass


def test_who_waits_is_told_so_and_tokenizes_nothing_twice(stories, tmp_path, monkeypatch, caplog):
    tokenizing, go_on = threading.Event(), threading.Event()

    class HeldTokenizer(CountingTokenizer):
        def encode(self, texts: list[str]) -> list[list[int]]:
            tokenizing.set()
            assert go_on.wait(30)
            return super().encode(texts)

    opened = []
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda **where: opened.append(where) or load(**where))
    tokenizer = HeldTokenizer()
    monkeypatch.setattr("lit_attr.data.rows.load_tokenizer", tokenizer)
    monkeypatch.setattr("lit_attr.files.lock._HEARTBEAT", 0.05)
    caplog.set_level("INFO", logger="lit_attr")
    spec = make_spec(stories)
    first, second = (threading.Thread(target=prepared, args=(spec, tmp_path / "c")) for _ in range(2))
    first.start()
    assert tokenizing.wait(30)
    second.start()
    while "waiting for another process to tokenize" not in caplog.text:
        assert second.is_alive()
        time.sleep(0.01)
    go_on.set()
    first.join(30)
    second.join(30)
    assert not first.is_alive()
    assert not second.is_alive()
    assert len(tokenizer.calls) == 3
    assert len(opened) == 1


# Where a cache is


def test_the_folder_is_a_function_of_the_description_and_says_it(stories, tmp_path):
    spec = make_spec(stories)
    cache = prepared(spec, tmp_path / "c")
    assert TokenCache(make_spec(stories), tmp_path / "c").folder == cache.folder
    assert json.loads((cache.folder / "spec.json").read_text()) == asdict(spec)


@pytest.mark.parametrize(
    "change",
    [
        {"split": "test"},
        {"column_name": "story"},
        {"max_seq_len": 4},
        {"is_tokenized": True},
        {"streaming": True},
        {"buffer_size": 51},
        {"seed": 4},
        {"eos_token": "f"},
    ],
    ids=str,
)
def test_another_description_has_another_folder(stories, tmp_path, change):
    assert TokenCache(make_spec(stories, **change), tmp_path).folder != TokenCache(make_spec(stories), tmp_path).folder


def other_content(folder: Path) -> None:
    write_rows(folder / "data" / "part0.jsonl", text=texts(50, seed=1))


def one_file_more(folder: Path) -> None:
    write_rows(folder / "data" / "part1.jsonl", text=texts(50, seed=1))


def later(folder: Path) -> None:
    os.utime(folder / "data" / "part0.jsonl", (2_000_000_000, 2_000_000_000))


def other_tokenizer(folder: Path) -> None:
    write_tokenizer(folder / "tokenizer.json", [*LEAST_TOKENS, "[EOS]"])


@pytest.mark.parametrize("of_a_folder", [False, True])
@pytest.mark.parametrize("change", [other_content, later, other_tokenizer, one_file_more])
def test_changed_files_are_another_cache(tmp_path, change, of_a_folder):
    path = write_rows(tmp_path / "data" / "part0.jsonl", text=texts(60))
    write_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = str(tmp_path / "tokenizer.json")
    spec = make_spec(tmp_path / "data" if of_a_folder else path, tokenizer=tokenizer)
    before = TokenCache(spec, tmp_path).folder
    assert TokenCache(spec, tmp_path).folder == before
    change(tmp_path)
    assert (TokenCache(spec, tmp_path).folder != before) == (change is not one_file_more or of_a_folder)


def test_rows_are_those_of_the_changed_file(tmp_path):
    path = write_rows(tmp_path / "data.jsonl", text=["ab" * 20])
    spec = make_spec(path)
    assert content(prepared(spec, tmp_path / "c")).tolist() == [[8] * 8] * 2
    write_rows(path, text=["cd" * 40])
    assert content(prepared(spec, tmp_path / "c")).tolist() == [[9] * 8] * 5


# What cannot be


@pytest.mark.parametrize("streaming", [False, True])
def test_too_few_texts_for_one_row(tmp_path, streaming):
    path = write_rows(tmp_path / "data.jsonl", text=["abcd", "ab"])
    cache = prepared(make_spec(path, max_seq_len=100, streaming=streaming), tmp_path / "c")
    with pytest.raises(DataError, match=r"dataset '.*data\.jsonl', split 'train', gives no row of 100 tokens"):
        cache.open()


def test_a_cache_that_was_never_made(stories, tmp_path):
    with pytest.raises(DataError, match="gives no row of 8 tokens"):
        TokenCache(make_spec(stories), tmp_path).open()


def test_root_that_is_a_file(stories):
    with pytest.raises(StorageError, match="cannot create the folder"):
        prepared(make_spec(stories), stories)


def test_rows_that_cannot_be_written(stories, tmp_path):
    cache = TokenCache(make_spec(stories), tmp_path / "c")
    (cache.folder / "tokens.bin").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write the token cache .*tokens\.bin: "):
        cache.prepare(None)


def test_a_connection_that_breaks_while_streaming_is_no_failed_write(stories, tmp_path, monkeypatch):
    def rows():
        yield from ({"text": text} for text in texts(1500))
        raise ConnectionError("the server went away")

    stream = datasets.IterableDataset.from_generator(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda **where: stream)
    with pytest.raises(DataError, match=r"data\.jsonl.*the server went away"):
        prepared(make_spec(stories, **STREAM), tmp_path / "c")
