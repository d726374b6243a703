"""A random order is one-to-one, stays what it is, and makes the first rows a sample of all."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.data.random_order import MAX_SEED, RandomOrder, rows_at

N_SEEDS = 200


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, MAX_SEED))
def test_every_row_comes_once(n_rows, seed):
    found = RandomOrder(n_rows, seed)[np.arange(n_rows)]
    assert np.array_equal(np.sort(found), np.arange(n_rows))


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 9, 10, 16, 17, 999_999, 1_000_000, 1_000_001])
def test_sizes_around_squares(n_rows):
    found = RandomOrder(n_rows, 7)[np.arange(n_rows)]
    assert np.array_equal(np.sort(found), np.arange(n_rows))


def test_it_never_changes():
    """Harvests that were begun with it go on with it: what is written here must not be adapted."""
    places = np.array([0, 1, 2, 3, 999])
    assert RandomOrder(1000, 0)[places].tolist() == [538, 133, 649, 471, 173]
    assert RandomOrder(1000, 1)[places].tolist() == [874, 53, 731, 0, 802]
    large = [671747004011, 375728130634, 841506746450, 715490442702, 687409941186]
    assert RandomOrder(2**40 + 1, MAX_SEED)[places].tolist() == large


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2**40), st.integers(0, MAX_SEED), st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_a_place_does_not_depend_on_what_else_is_asked_for(n_rows, seed, numbers):
    places = np.array(numbers) % n_rows
    order = RandomOrder(n_rows, seed)
    together = order[places]
    assert together.tolist() == [int(order[places[i : i + 1]][0]) for i in range(len(places))]
    assert ((together >= 0) & (together < n_rows)).all()


def test_the_first_rows_are_a_sample_of_sorted_data():
    """Means of the first 200 of rows 0 to 4,999, over seeds, vary as those of draws without replacement."""
    n_rows, n_drawn = 5000, 200
    means = np.array([RandomOrder(n_rows, seed)[np.arange(n_drawn)].mean() for seed in range(N_SEEDS)])
    variance = (n_rows + 1) * (n_rows - n_drawn) / (12 * n_drawn)
    z = (means - (n_rows - 1) / 2) / variance**0.5
    assert abs(z.mean()) < 4 / N_SEEDS**0.5
    assert abs(z.var() - 1) < 4 * (2 / N_SEEDS) ** 0.5
    assert abs(z).max() < 5


def test_neighbours_are_no_more_alike_than_others():
    """The correlation of each row of sorted data with the next, which in the order of the file is 1."""
    n_rows = 5000
    correlations = []
    for seed in range(N_SEEDS):
        rows = RandomOrder(n_rows, seed)[np.arange(n_rows)].astype(float)
        correlations.append(np.corrcoef(rows[:-1], rows[1:])[0, 1])
    z = np.array(correlations) * n_rows**0.5
    assert abs(z.mean()) < 4 / N_SEEDS**0.5
    assert abs(z.var() - 1) < 4 * (2 / N_SEEDS) ** 0.5


def test_all_orders_of_a_few_rows_come_about_equally_often():
    found = [tuple(RandomOrder(4, seed)[np.arange(4)].tolist()) for seed in range(2400)]
    counts = np.array([found.count(order) for order in permutations(range(4))])
    chi_square = float(((counts - 100) ** 2 / 100).sum())
    assert chi_square < 23 + 5 * (2 * 23) ** 0.5


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_rows_are_read_in_the_order_that_is_asked_for(layout):
    rows = layout(np.arange(40, dtype=np.uint16).reshape(10, 4))
    places = np.array([7, 0, 9, 0, 3])
    found = rows_at(rows, places)
    assert found.dtype == np.uint16
    assert found.tolist() == [rows[place].tolist() for place in places]
