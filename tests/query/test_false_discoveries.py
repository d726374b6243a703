"""Discoveries in a stream, against the rule applied to the sorted list."""

import pytest
import torch

from lit_attr.query.false_discoveries import Discoveries, PValues


def by_definition(p, n_tests, level):
    """Mask of the discoveries, and all q values."""
    order = p.argsort()
    ranks = torch.arange(1, len(p) + 1, dtype=torch.float64)
    levels = p[order] * n_tests / ranks
    passing = (levels <= level).nonzero()[:, 0]
    found, q = torch.zeros(len(p), dtype=torch.bool), torch.empty_like(p)
    found[order[: int(passing[-1]) + 1 if len(passing) else 0]] = True
    q[order] = levels.flip(0).cummin(0).values.flip(0)
    return found, q


def streamed(p, n_tests, level, n_pieces=3):
    def see(seen):
        for piece in p.chunk(n_pieces):
            seen.add(piece)

    first, n_again = PValues(), 0

    def see_again(seen):
        nonlocal n_again
        n_again += 1
        see(seen)

    see(first)
    return Discoveries.find(first, n_tests, level, see_again), n_again


def p_values(kind, n, seed):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(n, generator=generator, dtype=torch.float64)
    some = torch.rand(n, generator=generator) < 0.3
    if kind == "mixed":
        p[some] **= 8
    if kind == "ties":
        p = (p * 20).ceil() / 400
    if kind == "close":  # nearly all of them in one bin, about the level
        p = 0.05 * (1 - 1e-6 * p)
    if kind == "tiny":
        p[some] = p[some] * 1e-310
    return p


@pytest.mark.parametrize("kind", ["none", "mixed", "ties", "close", "tiny"])
@pytest.mark.parametrize("n", [1, 7, 5000])
@pytest.mark.parametrize("level", [0.05, 0.4])
def test_they_are_those_of_the_sorted_list(kind, n, level):
    for seed in range(3):
        p = p_values(kind, n, seed)
        for n_tests in (n, 2 * n):
            expected, q = by_definition(p, n_tests, level)
            found, n_again = streamed(p, n_tests, level)
            mask = p <= (-1 if found.threshold is None else found.threshold)
            assert torch.equal(mask, expected)
            assert n_again <= 3
            ours = found.q_values(p[mask])
            assert torch.all((ours >= q[mask]) | (q[mask] < 1e-300))
            assert torch.all((ours <= q[mask] * 1.001) | (q[mask] < 1e-300))


def test_values_above_the_level_may_be_left_out():
    p = p_values("mixed", 2000, 5)
    found, _ = streamed(p, len(p), 0.05)
    fewer, _ = streamed(p[p <= 0.05], len(p), 0.05)
    assert found.threshold == fewer.threshold
    assert torch.equal(found.q_values(p[p <= found.threshold]), fewer.q_values(p[p <= found.threshold]))


def test_nothing_tested():
    assert streamed(torch.empty(0, dtype=torch.float64), 0, 0.05)[0].threshold is None
