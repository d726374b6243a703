"""All token ids are checked before the first batch, and what looks like padding is said."""

import numpy as np
import pytest

from lit_attr.data import digest
from lit_attr.data.row_check import check_rows
from lit_attr.data.row_source import RowSource
from lit_attr.errors import DataError

N_ROWS, VOCAB = 3000, 50


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Opens a token file that was made from random ids; blocks are of 100 rows."""
    monkeypatch.setattr(digest, "_BLOCK_BYTES", 100 * 8 * 2)

    def opened(change, seed=None):
        rows = np.random.default_rng(0).integers(0, VOCAB, (N_ROWS, 8)).astype(np.int16)
        change(rows)
        np.save(tmp_path / "t.npy", rows)
        return RowSource.of_file(tmp_path / "t.npy", seed)

    return opened


@pytest.mark.parametrize("bad", [VOCAB, -1])
@pytest.mark.parametrize("row", [1, 1999, 2998])
def test_one_id_anywhere_is_found(source, bad, row):
    """Neither is in the sample of 1,024 rows."""

    def change(rows):
        rows[row, 5] = bad

    place = f"batch {row // 7}, row {row % 7}, position 5: token id {bad} is outside"
    with pytest.raises(DataError, match=place):
        check_rows(source(change), N_ROWS, 7, VOCAB)
    in_random_order = source(change, seed=3)
    (number,) = np.flatnonzero((in_random_order.read(np.arange(N_ROWS)) == bad).any(1))
    with pytest.raises(DataError, match=f"batch {number // 7}, row {number % 7}, position 5"):
        check_rows(in_random_order, N_ROWS, 7, VOCAB)


@pytest.mark.parametrize("seed", [None, 3])
def test_rows_that_are_not_harvested_do_not_count(source, seed):
    def change(rows):
        rows[2998, 5] = VOCAB

    opened = source(change, seed)
    (number,) = np.flatnonzero((opened.read(np.arange(N_ROWS)) == VOCAB).any(1))
    assert check_rows(opened, int(number), 7, VOCAB) == []
    with pytest.raises(DataError):
        check_rows(opened, int(number) + 1, 7, VOCAB)


def test_bounds_are_those_of_the_rows_and_are_remembered(source, tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "_SETTLED", -1)
    opened = source(lambda rows: None)
    rows = opened.rows
    assert opened.bounds(250) == (rows[:250].min(), rows[:250].max())
    assert (tmp_path / ".t.npy.digest.json").exists()
    monkeypatch.setattr(digest.RowDigests, "_compute", lambda *_: pytest.fail("computed again"))
    again = RowSource.of_file(tmp_path / "t.npy")
    assert (again.bounds(250), again.digest(250)) == (opened.bounds(250), opened.digest(250))


def test_what_may_be_padding_is_said(source):
    assert check_rows(source(lambda rows: None), N_ROWS, 7, VOCAB) == []

    def pad(rows):
        rows[::2, 4:] = 9

    often, last = check_rows(source(pad), N_ROWS, 7, VOCAB)
    assert often.startswith("27% of the tokens are of id 9: whatever it is, padding or")
    assert last.startswith("50% of the rows end in id 9 twice or more")
    assert check_rows(source(pad), 100, 7, VOCAB) == [], "of few tokens shares say nothing"
