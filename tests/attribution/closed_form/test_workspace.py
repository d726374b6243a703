import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_attr.attribution.closed_form.workspace import Workspace, evenly


def covered(slices):
    return [i for piece in slices for i in range(piece.start, piece.stop)]


@given(st.integers(0, 200), st.integers(1, 220))
def test_even_pieces_cover_everything_once_and_are_as_few_as_can_be(n_items, at_most):
    pieces = list(evenly(n_items, at_most))
    sizes = [piece.stop - piece.start for piece in pieces]
    assert covered(pieces) == list(range(n_items))
    assert all(0 < size <= at_most for size in sizes)
    assert len(pieces) <= -(-n_items // at_most)
    assert all(size == sizes[0] for size in sizes[:-1])


@given(st.integers(0, 100), st.integers(1, 1000), st.integers(1, 10_000))
def test_pieces_stay_within_their_share(n_items, bytes_per_item, nbytes):
    pieces = list(Workspace(nbytes, torch.device("cpu")).pieces(n_items, bytes_per_item))
    assert covered(pieces) == list(range(n_items))
    assert all((p.stop - p.start) * bytes_per_item <= nbytes / 4 or p.stop - p.start == 1 for p in pieces)


def test_pieces_on_a_cpu_stay_in_its_caches():
    cpu, cuda = (next(Workspace(1 << 40, torch.device(d)).pieces(1 << 24, 8)) for d in ("cpu", "cuda"))
    assert cpu.stop * 8 <= 16 << 20
    assert cuda == slice(0, 1 << 24)


@given(st.integers(0, 1 << 40))
def test_shares_are_no_more_than_the_whole(nbytes):
    workspace = Workspace(nbytes, torch.device("cpu"))
    assert workspace.for_positions + workspace.for_block + nbytes // 4 <= nbytes
