import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_attr.data.batch_ids import all_ids, from_ranges, is_in_share, show, to_ranges, union, without

IDS = st.sets(st.integers(0, 60), max_size=40).map(lambda ids: np.array(sorted(ids), dtype=np.int64))
# As ranks take them: every so-many-th of a range.
STRIDES = st.builds(lambda first, n, step: np.arange(first, first + n * step, step), *[st.integers(1, 50)] * 3)


@given(st.one_of(IDS, STRIDES))
def test_ranges_are_the_ids(ids):
    ranges = to_ranges(ids)
    assert from_ranges(ranges).tolist() == ids.tolist()
    assert all(type(number) is int for entry in ranges for number in entry), "plain types, for JSON"
    assert sum(len(range(first, last + 1, step)) for first, last, step in ranges) == len(ids), "none twice"


@given(STRIDES)
def test_strides_are_one_range(ids):
    assert len(to_ranges(ids)) == 1


@given(IDS, IDS)
def test_sets(a, b):
    assert union([a, b]).tolist() == sorted({*a.tolist(), *b.tolist()})
    assert without(a, b).tolist() == sorted({*a.tolist()} - {*b.tolist()})
    assert union([]).tolist() == []
    assert union([]).dtype == np.int64


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], "0 ()"),
        ([7], "1 (7)"),
        ([0, 1, 2], "3 (0-2)"),
        ([1, 4, 7, 9], "4 (1-7 step 3, 9)"),
        ([i * i for i in range(1, 17)], "16 (1-4 step 3, 9-16 step 7, 25-36 step 11, 49-64 step 15, 81-100 step 19, "
         "121-144 step 23, 169-196 step 27, 225-256 step 31)"),
        ([i * i for i in range(1, 18)], "17 (1-4 step 3, 9-16 step 7, 25-36 step 11, 49-64 step 15, 81-100 step 19, "
         "121-144 step 23, 169-196 step 27, 225-256 step 31, ...)"),
    ],
)  # fmt: skip
def test_show(ids, text):
    assert show(np.array(ids, dtype=np.int64)) == text


@given(IDS)
def test_what_is_shown_is_how_many(ids):
    assert show(ids).startswith(f"{len(ids)} (")


def test_all_ids():
    assert all_ids(3).tolist() == [0, 1, 2]
    assert all_ids(0).tolist() == []


@given(st.integers(0, 10**8), st.floats(0.01, 1.0), st.integers(1, 3000))
def test_a_share_of_any_batches_in_a_row(first, share, n):
    """Between what evenly spread batches would be and a few more or less; the same whoever asks."""
    chosen = [is_in_share(batch, share) for batch in range(first, first + n)]
    assert abs(sum(chosen) - share * n) < 6
    assert chosen == [is_in_share(batch, share) for batch in range(first, first + n)]


@given(st.integers(0, 10**8), st.floats(1e-9, 1.0))
def test_shares_contain_smaller_ones(batch, share):
    assert is_in_share(0, share)
    assert is_in_share(batch, 1.0)
    assert is_in_share(batch, share) or not is_in_share(batch, share / 2)


def test_which_batches_are_in_a_share():
    """For ever: harvests are continued by other versions of this package."""
    assert [batch for batch in range(20) if is_in_share(batch, 0.25)] == [0, 2, 5, 10, 13, 18]
