from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.attribution.closed_form import weights as module
from lit_attr.attribution.closed_form.batch import LayerPairs
from lit_attr.attribution.closed_form.weights import DenseWeights, SparseWeights, is_dense
from lit_attr.attribution.closed_form.workspace import Workspace

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def sparse_matrix(n_positions, n_sources, density):
    return randn(n_positions, n_sources) * (torch.rand(n_positions, n_sources, generator=GENERATOR) < density)


matrices = st.builds(sparse_matrix, st.integers(1, 9), st.integers(1, 7), st.sampled_from([0.0, 0.1, 0.5, 1.0]))


def pairs_in(matrix):
    """The entries of a matrix that are not zero; where its causal importance is zero, a component may be active."""
    ci = (matrix != 0).to(matrix) * 0.5
    pairs = LayerPairs.of(ci[None], int(ci.count_nonzero()), ci.dtype)
    place, weight = pairs.active(torch.where(matrix != 0, matrix * 2, 1)[None]).some(slice(None), 0)
    return SparseWeights.of_places(place, weight, matrix.shape[1], longest_sum(matrix))


def longest_sum(matrix):
    return int(matrix.count_nonzero(0).max())


def dense(pairs, n_positions):
    return pairs.dense(n_positions).matrix


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(matrix=matrices)
def test_pairs_are_the_non_zero_entries_source_by_source(matrix):
    pairs = pairs_in(matrix)
    assert dense(pairs, len(matrix)).equal(matrix)
    assert len(pairs.weight) == int(matrix.count_nonzero())
    order = list(zip(pairs.source.tolist(), pairs.position.tolist(), strict=True))
    assert order == sorted(order)
    assert pairs.n_sources == DenseWeights(matrix).n_sources == matrix.shape[1]
    assert pairs.offsets.diff().tolist() == matrix.count_nonzero(0).tolist()
    assert int(pairs.offsets[0]) == 0
    assert pairs.partial is None
    assert not pairs.has_long_sums


@settings(max_examples=60, deadline=None)
@given(matrix=matrices, limit=st.sampled_from([1, 200, 1 << 30]), longest=st.sampled_from([1, 2, 3, 256]))
@pytest.mark.parametrize("representation", [pairs_in, DenseWeights])
def test_operations_are_those_of_the_matrix(representation, matrix, limit, longest):
    with patch.object(module, "_LONGEST_SUM", longest):
        weights = representation(matrix)
    assert isinstance(weights, DenseWeights) or weights.has_long_sums == (longest_sum(matrix) > longest)
    n_positions, n_sources = matrix.shape
    factor, values = randn(n_positions), randn(n_positions, 4)
    left, right = randn(n_positions, 5), randn(n_sources, 5)
    same(weights.total(values), matrix.T @ values)
    same(weights.scaled(factor).total(values), (factor[:, None] * matrix).T @ values)
    along = weights.along(left, right, Workspace(limit, CPU))
    same(along.total(values), (matrix * (left @ right.T)).T @ values)
    assert isinstance(along, type(weights))


def test_long_sums_round_little():
    """One after the other, 30,000 terms would be off by several millionths."""
    matrix = sparse_matrix(30_000, 3, 0.9).abs().float()
    matrix[:, 2] = 0
    values = randn(30_000, 8).abs().float()
    expected = matrix.double().T @ values.double()
    error = (pairs_in(matrix).total(values) - expected).norm() / expected.norm()
    assert error < 5e-7


@pytest.mark.parametrize(
    ("density", "on_cpu", "on_gpu"), [(0.0, False, False), (0.01, False, False), (0.2, False, True), (1.0, True, True)]
)
def test_dense_where_few_entries_are_zero(density, on_cpu, on_gpu):
    shape = torch.Size([40, 30])
    n_pairs = int(density * shape.numel())
    assert is_dense(n_pairs, shape.numel(), CPU) is on_cpu
    assert is_dense(n_pairs, shape.numel(), torch.device("meta")) is on_gpu


def test_memory_of_pairs_follows_their_number():
    pairs = pairs_in(sparse_matrix(1000, 100, 0.01))
    n = len(pairs.weight)
    assert {t.numel() for t in (pairs.weight, pairs.position, pairs.source)} == {n}
    assert n < 2000
