"""Texts and token lists become rows; what cannot become rows is explained."""

import json
import random
import sys

import datasets
import numpy as np
import pytest

from lit_attr.data.rows import join_texts, pieces, read_rows
from lit_attr.errors import ConfigurationError, DataError
from tests.data import (
    EOS,
    LEAST_TOKENS,
    CountingTokenizer,
    id_lists,
    make_spec,
    offline,  # noqa: F401
    specified_batches,
    texts,
    toy_tokenizer,
    write_rows,
    write_tokenizer,
)


@pytest.fixture
def stories(tmp_path):
    return write_rows(tmp_path / "data.jsonl", text=texts(1200))


def rows_of(spec) -> np.ndarray:
    return np.concatenate(list(read_rows(spec)))


def sorted_rows(rows) -> list[list[int]]:
    return sorted(np.asarray(rows).tolist())


# Joining and cutting


def test_eos_stands_between_texts_and_not_at_the_end():
    assert join_texts(["ab", "", "cd"], EOS, "someone/stories") == "ab[EOS][EOS]cd"


@pytest.mark.parametrize(
    ("name", "joined"),
    [
        ("lennart-finke/SimpleStories", "A[EOS]B[EOS]C"),
        ("/data/SimpleStories.parquet", "A[EOS]B[EOS]C"),
        ("someone/simplestories", "A[eos]B[EOS]C"),
        ("someone/stories", "A[eos]B[EOS]C"),
    ],
)
def test_lower_case_eos_is_restored_in_simple_stories_alone_and_texts_stay_as_they_are(name, joined):
    assert join_texts(["A[eos]B", "C"], EOS, name) == joined


@pytest.mark.parametrize("length", [*range(1, 65), 399, 400, 401, 9999])
def test_pieces_are_twenty_of_equal_length_less_the_empty_ones(length):
    text = "".join(random.Random(length).choices("abc", k=length))
    size = (length - 1) // 20 + 1
    twenty = [text[i * size : (i + 1) * size] for i in range(20)]
    assert pieces(text) == [piece for piece in twenty if piece]


def test_pieces_of_nothing():
    assert pieces("") == []


def test_tokens_break_between_pieces(tmp_path):
    """Forty letters are twenty pieces of two: abcd is never one token."""
    path = write_rows(tmp_path / "data.jsonl", text=["abcd" * 10])
    assert rows_of(make_spec(path, max_seq_len=4)).tolist() == [[8, 9] * 2] * 5


def test_tokens_join_within_a_piece(tmp_path):
    path = write_rows(tmp_path / "data.jsonl", text=["abcd" * 20])
    assert rows_of(make_spec(path, max_seq_len=5)).tolist() == [[10] * 5] * 4


def test_special_tokens_are_found_in_texts(tmp_path):
    path = write_rows(tmp_path / "data.jsonl", text=["ab[EOS]" * 20])
    assert rows_of(make_spec(path, max_seq_len=2)).tolist() == [[8, 0]] * 20


@pytest.mark.parametrize(("name", "n_eos"), [("SimpleStories.jsonl", 20), ("Stories.jsonl", 0)])
def test_lower_case_eos_in_a_file(tmp_path, name, n_eos):
    path = write_rows(tmp_path / name, text=["ab[eos]" * 20])
    assert (rows_of(make_spec(path, max_seq_len=2)) == 0).sum() == n_eos


def test_rest_of_every_map_batch_is_dropped(tmp_path):
    """Of 1,001 texts the last is a batch of its own; the rests of the two would make another row together."""
    path = write_rows(tmp_path / "data.jsonl", text=["f" * 20] * 1001)
    batches = list(read_rows(make_spec(path, max_seq_len=15)))
    text = EOS.join(["f" * 20] * 1000)
    size = (len(text) - 1) // 20 + 1
    ids = [i for at in range(0, len(text), size) for i in toy_tokenizer().encode(text[at : at + size]).ids]
    assert (len(ids) % 15) + 20 % 15 >= 15
    assert [batch.tolist() for batch in batches] == [
        [ids[i : i + 15] for i in range(0, len(ids) - 14, 15)],
        [[6] * 15],
    ]


def test_a_map_batch_may_give_no_row(tmp_path):
    path = write_rows(tmp_path / "data.jsonl", text=["ab"] * 1001)
    first, second = read_rows(make_spec(path))
    assert len(first) > 100
    assert second.shape == (0, 8)


@pytest.mark.parametrize("on_the_hub", [False, True])
def test_a_map_batch_of_one_empty_text(tmp_path, on_the_hub):
    """Streamed in order by a buffer of one row, the last of 1,001 texts is a batch of its own."""
    path = write_rows(tmp_path / "data.jsonl", text=["ab"] * 1000 + [""])
    folder = tmp_path / "tokenizer"
    if on_the_hub:
        from transformers import PreTrainedTokenizerFast

        PreTrainedTokenizerFast(tokenizer_object=toy_tokenizer(), eos_token=EOS).save_pretrained(folder)
    else:
        write_tokenizer(folder / "tokenizer.json")
    batches = list(read_rows(make_spec(path, streaming=True, buffer_size=1, tokenizer=str(folder))))
    assert [len(batch) > 0 for batch in batches] == [True, False]


def test_skipped_batches_are_neither_tokenized_nor_different(stories, monkeypatch):
    spec = make_spec(stories)
    both = list(read_rows(spec))
    counting = CountingTokenizer()
    monkeypatch.setattr("lit_attr.data.rows.load_tokenizer", counting)
    (last,) = read_rows(spec, skip_batches=1)
    assert len(counting.calls) == 1
    assert np.array_equal(last, both[1])


def test_row_order_before_the_last_shuffle_is_that_of_the_texts(stories):
    spec = make_spec(stories)
    described = {**vars(spec), "shuffle_each_epoch": False}
    (expected,) = specified_batches(described, 10**6)
    assert np.array_equal(rows_of(spec), expected.numpy())


def test_token_ids_are_cut_to_the_first(tmp_path):
    path = write_rows(tmp_path / "data.jsonl", text=[[1, 2, 3, 4, 5], [6, 7, 8]])
    assert sorted_rows(rows_of(make_spec(path, is_tokenized=True, max_seq_len=3))) == [[1, 2, 3], [6, 7, 8]]


def test_token_ids_need_no_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_attr.data.rows.load_tokenizer", None)
    path = write_rows(tmp_path / "data.parquet", text=id_lists(5))
    assert len(rows_of(make_spec(path, is_tokenized=True, tokenizer=None))) == 5


# Tokenizers


def test_every_form_of_a_tokenizer_gives_the_same_rows(stories, tmp_path):
    from transformers import PreTrainedTokenizerFast

    write_tokenizer(tmp_path / "folder" / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_object=toy_tokenizer(), eos_token=EOS).save_pretrained(tmp_path / "hub")
    expected = rows_of(make_spec(stories))
    for name in ("folder", "hub"):
        assert np.array_equal(rows_of(make_spec(stories, tokenizer=str(tmp_path / name))), expected)


def test_eos_of_the_user_goes_before_that_of_the_tokenizer(stories):
    spec = make_spec(stories, eos_token="fff")
    (expected,) = specified_batches({**vars(spec), "shuffle_each_epoch": False}, 10**6, eos="fff")
    assert np.array_equal(rows_of(spec), expected.numpy())
    assert 0 not in rows_of(spec)


def test_no_eos_at_all_is_the_users_choice_too(stories):
    spec = make_spec(stories, eos_token="")
    (expected,) = specified_batches({**vars(spec), "shuffle_each_epoch": False}, 10**6, eos="")
    assert np.array_equal(rows_of(spec), expected.numpy())


def test_no_eos(stories, tmp_path):
    tokenizer = str(write_tokenizer(tmp_path / "other.json", [*LEAST_TOKENS, "<end>"]))
    with pytest.raises(
        DataError, match=r"other\.json' has no end-of-text token: name it with --data\.dataset\.eos_tok"
    ):
        list(read_rows(make_spec(stories, tokenizer=tokenizer)))
    assert len(rows_of(make_spec(stories, tokenizer=tokenizer, eos_token="<end>"))) > 1000


# What is no dataset


def test_file_of_another_kind(tmp_path):
    (tmp_path / "data.docx").write_text("ab")
    message = r"data\.docx: expected a file ending in \.txt, \.parquet, \.jsonl, \.json, \.csv, found '\.docx'"
    with pytest.raises(DataError, match=message):
        list(read_rows(make_spec(tmp_path / "data.docx")))


@pytest.mark.parametrize("streaming", [False, True])
def test_no_such_column(stories, streaming):
    with pytest.raises(DataError, match=r"data\.jsonl' has no column 'story'; it has \['text'\]"):
        list(read_rows(make_spec(stories, column_name="story", streaming=streaming)))


@pytest.mark.parametrize("streaming", [False, True])
def test_no_such_split(tmp_path, streaming):
    write_rows(tmp_path / "data" / "train.parquet", text=texts(10))
    with pytest.raises(DataError, match=r"cannot open the dataset '.*data', split 'test': .*train"):
        list(read_rows(make_spec(tmp_path / "data", split="test", streaming=streaming)))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["nobody/nothing", "./nowhere.txt"])
def test_dataset_that_cannot_be_had(stories, name, streaming):
    with pytest.raises(DataError, match=f"cannot open the dataset '{name}', split 'train': ."):
        list(read_rows(make_spec(stories, dataset_name=name, streaming=streaming)))


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_are_too_short(tmp_path, streaming):
    rows = id_lists(1100)
    rows[-1] = [1, 2, 3]
    path = write_rows(tmp_path / "data.jsonl", text=rows)
    spec = make_spec(path, is_tokenized=True, streaming=streaming, buffer_size=1)
    number = 1099 if streaming else r"\d+"
    message = rf"data\.jsonl', row {number} \(shuffled\), column 'text': expected at least 8 token ids, found 3"
    with pytest.raises(DataError, match=message):
        list(read_rows(spec))


def test_numbers_of_rows_count_the_skipped_ones(tmp_path):
    path = write_rows(tmp_path / "data.jsonl", text=[*id_lists(1099), [1, 2, 3]])
    spec = make_spec(path, is_tokenized=True, streaming=True, buffer_size=1)
    with pytest.raises(DataError, match=r"row 1099 \(shuffled\)"):
        list(read_rows(spec, skip_batches=1))


def test_texts_where_token_ids_were_promised(tmp_path):
    path = write_rows(tmp_path / "data.jsonl", text=["once upon a time"])
    with pytest.raises(DataError, match="column 'text': expected at least 8 token ids, found 'once upon a time'"):
        list(read_rows(make_spec(path, is_tokenized=True)))


@pytest.mark.parametrize(
    "row", [["a"] * 8, [0.5] * 8, [[1, 2]] * 8, [1] * 7 + [None], [2**33] * 8], ids=lambda row: type(row[-1]).__name__
)
def test_lists_of_something_else_than_token_ids(tmp_path, row):
    path = write_rows(tmp_path / "data.jsonl", text=[row] * 3)
    with pytest.raises(DataError, match=r"data\.jsonl'.*column 'text'"):
        list(read_rows(make_spec(path, is_tokenized=True)))


@pytest.mark.parametrize("column", [["ab", None], [1, 2], [[1] * 8] * 2], ids=["none", "number", "token ids"])
def test_something_else_where_texts_were_promised(tmp_path, column):
    path = write_rows(tmp_path / "data.jsonl", text=column)
    with pytest.raises(DataError, match=r"data\.jsonl'.*column 'text'"):
        list(read_rows(make_spec(path)))


@pytest.mark.parametrize("streaming", [False, True])
def test_damaged_file_names_its_damage(tmp_path, streaming):
    good = write_rows(tmp_path / "data" / "part0.parquet", text=texts(10))
    (tmp_path / "data" / "part1.parquet").write_bytes(good.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"dataset '.*data'.*[Pp]arquet"):
        list(read_rows(make_spec(tmp_path / "data", streaming=streaming)))


@pytest.mark.parametrize("streaming", [False, True])
def test_text_of_another_encoding_names_the_encoding(tmp_path, streaming):
    (tmp_path / "data.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match=r"data\.txt'.*utf-8"):
        list(read_rows(make_spec(tmp_path / "data.txt", streaming=streaming)))


def test_wildcards_in_a_path_are_letters(tmp_path):
    (tmp_path / "a[1]").mkdir()
    path = write_rows(tmp_path / "a[1]" / "data*.jsonl", text=["ab" * 20])
    assert rows_of(make_spec(path)).tolist() == [[8] * 8] * 2


def test_datasets_is_not_installed(stories, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match=r"'datasets' is needed here: pip install 'lit_attr\[hf\]'"):
        list(read_rows(make_spec(stories)))


def test_home_is_the_users_folder(stories, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert np.array_equal(rows_of(make_spec(stories, dataset_name="~/data.jsonl")), rows_of(make_spec(stories)))


def test_the_dataset_is_opened_once_as_the_description_says(stories, monkeypatch):
    opened = []
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda **where: opened.append(where) or load(**where))
    list(read_rows(make_spec(stories, split="some", streaming=True)))
    assert opened == [{"path": "json", "data_files": {"some": str(stories)}, "split": "some", "streaming": True}]


def test_a_hub_id_reaches_the_library_as_it_is(stories, monkeypatch):
    rows = datasets.Dataset.from_dict({"text": [json.loads(line)["text"] for line in stories.read_text().splitlines()]})
    opened = []
    monkeypatch.setattr(datasets, "load_dataset", lambda **where: opened.append(where) or rows)
    found = rows_of(make_spec(stories, dataset_name="someone/stories"))
    assert opened == [{"path": "someone/stories", "split": "train", "streaming": False}]
    assert np.array_equal(found, rows_of(make_spec(stories)))
