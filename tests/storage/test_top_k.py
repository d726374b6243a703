"""Rankings of rows that are seen piece by piece, against sorting them whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.errors import StorageError
from lit_attr.storage.best import top_k
from lit_attr.storage.top_k import RunningTopK, Segment, check_finite, strongest
from lit_attr.topology.live import LiveSet

SIGNS = ("positive", "negative", "both")


def by_sorting(values, k, sign):
    """Values of a row that have a sign, with their positions, best first."""
    fits = {"positive": lambda v: v > 0, "negative": lambda v: v < 0, "both": lambda v: v != 0}[sign]
    return sorted((one for one in values if fits(one[0])), key=lambda one: (-abs(one[0]), one[1]))[:k]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(SIGNS), st.integers(1, 9), st.integers(1, 4), st.lists(st.integers(1, 7), max_size=4), st.data())
def test_pieces_give_what_the_whole_gives(sign, k, n_rows, widths, data):
    width = sum(widths)
    # Many of the same magnitude: of equal ones, the first is the one with the lowest position.
    numbers = data.draw(st.lists(st.integers(0, 3), min_size=n_rows * width, max_size=n_rows * width))
    signs = data.draw(st.lists(st.sampled_from((-1.0, 1.0)), min_size=len(numbers), max_size=len(numbers)))
    values = (torch.tensor(numbers, dtype=torch.float32) * torch.tensor(signs)).reshape(n_rows, width)
    positions = torch.tensor(data.draw(st.permutations(range(width))), dtype=torch.int64)
    raw, top, start = 3 * values + 1, RunningTopK(n_rows, k, sign), 0
    for piece in widths:
        columns = slice(start, start + piece)
        top.add(values[:, columns], raw[:, columns], lambda places, start=start: positions[start + places])
        start += piece
    for row in range(n_rows):
        mask = top.has_sign()[row]
        kept = [part[row][mask] for part in top.kept]
        expected = by_sorting(zip(values[row].tolist(), positions.tolist(), strict=True), k, sign)
        assert [*zip(kept[0].tolist(), kept[2].tolist(), strict=True)] == expected
        assert torch.equal(kept[1], 3 * kept[0] + 1)


@pytest.mark.parametrize("sign", SIGNS)
def test_rows_without_a_place_in_the_list_are_passed_over(sign):
    factor = -1 if sign == "negative" else 1
    top = RunningTopK(1, 2, sign)
    candidates = factor * torch.tensor([[1.0, 4.0], [3.0, 2.0], [9.0, 0.0]])
    assert top.would_take(candidates).tolist() == [True, True, True]  # nothing is kept yet
    seen = factor * torch.tensor([[5.0, 3.0]])
    top.add(seen, seen, lambda places: places)
    # An equal one may have a lower position.
    assert top.would_take(candidates).tolist() == [True, True, True]
    assert top.would_take(candidates / 2).tolist() == [False, False, True]
    assert top.would_take(-candidates).tolist() == [sign == "both"] * 3


def test_layers_of_segments():
    segments = [
        Segment("embed", LiveSet(9, torch.tensor([4, 7])), torch.tensor([1.0, -2.0])),
        Segment("0.mlp.up", LiveSet(0), torch.tensor([])),
        Segment("output", LiveSet(1), torch.tensor([5.0])),
    ]
    assert [(e.component_key, e.value) for e in strongest(segments, 9, "positive")] == [("output:0", 5), ("embed:4", 1)]
    assert [e.component_key for e in strongest(segments, 9, "negative")] == ["embed:7"]
    assert strongest([], 1, "positive") == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_found_anywhere(value):
    values = torch.zeros(5, 7)
    for place in range(35):
        broken = values.flatten().clone()
        broken[place] = value
        for view in (broken, broken.reshape(5, 7), broken.reshape(7, 5).T):
            with pytest.raises(StorageError, match=r"embed to output: the stored sums are not finite"):
                check_finite(view, "embed to output")
    check_finite(values)
    check_finite(torch.empty(0))
    with pytest.raises(StorageError):
        check_finite(torch.tensor(value))


def test_top_k_of_fewer_values():
    values, places = top_k(torch.tensor([[1.0, -3.0]]), 5, "both")
    assert values.tolist() == [[-3, 1]]
    assert places.tolist() == [[1, 0]]
