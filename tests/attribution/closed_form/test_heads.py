from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lit_attr.attribution.closed_form import heads as module
from lit_attr.attribution.closed_form.heads import Heads, pair_blocks, position_blocks
from lit_attr.attribution.closed_form.weights import pairs_of
from lit_attr.attribution.closed_form.workspace import Workspace
from lit_attr.decomposition.anatomy import Norm
from tests.attribution.closed_form.test_weights import sparse_matrix
from tests.toys import toy_model

BATCH, SEQ_LEN, WIDTH = 2, 8, 4
MODELS = {
    "grouped queries": ("LlamaSimpleMLP", {"n_head": 2, "n_key_value_heads": 1}),
    "adjacent pairs": ("LlamaSimpleMLP", {"n_head": 2, "n_key_value_heads": 2, "rotary_adjacent_pairs": True}),
    "no rotation": ("GPT2Simple", {"n_head": 2}),
}
randn = partial(torch.randn, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=MODELS)
def attention(request):
    architecture, options = MODELS[request.param]
    return toy_model(architecture, model_options=options).anatomy().sublayers[0]


@pytest.fixture(params=[1, 3, 8])
def parts(request, attention, monkeypatch):
    """Outputs of the three matrices, with position blocks of several lengths."""
    monkeypatch.setattr(module, "_SHORTEST_BLOCK", request.param)
    kv_width = attention.n_heads // attention.n_groups * WIDTH
    return tuple(randn(BATCH, SEQ_LEN, width) for width in (attention.n_heads * WIDTH, kv_width, kv_width))


@pytest.fixture
def heads(attention, parts):
    return Heads.of(attention, *parts)


@pytest.fixture
def qkv(attention, parts):
    q, k, v = (x.view(BATCH, SEQ_LEN, -1, WIDTH).transpose(1, 2) for x in parts)
    if attention.rotate is not None:
        q, k = attention.rotate(q), attention.rotate(k)
    return q, *(x.repeat_interleave(attention.n_groups, 1) for x in (k, v))


@pytest.fixture
def pattern(qkv):
    q, k, _ = qkv
    future = torch.ones(SEQ_LEN, SEQ_LEN, dtype=torch.bool).triu(1)
    return (q @ k.transpose(-1, -2) / WIDTH**0.5).masked_fill(future, float("-inf")).softmax(-1)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_outputs_less_values_are_those_of_torch(heads, qkv):
    """Only these differences matter: all values of a head may be shifted together."""
    same(heads.out - heads.value, F.scaled_dot_product_attention(*qkv, is_causal=True) - qkv[2])
    assert heads.sizes == (BATCH, 2, SEQ_LEN, WIDTH)


@pytest.mark.parametrize(("queries", "keys"), [((0, 8), (0, 8)), ((2, 5), (0, 5)), ((3, 8), (3, 6)), ((0, 2), (5, 8))])
def test_pattern_is_causal_and_that_of_the_softmax(heads, pattern, queries, keys):
    queries, keys = slice(*queries), slice(*keys)
    same(heads.by_query(queries, keys), pattern[..., queries, keys])
    same(heads.by_key(queries, keys), pattern[..., queries, keys].transpose(-1, -2))


def test_parts(heads, pattern):
    part = heads.part(slice(1, 2), slice(1, 2))
    assert part.sizes == (1, 1, SEQ_LEN, WIDTH)
    same(part.by_query(slice(0, 8), slice(0, 8)), pattern[1:2, 1:2])
    same(part.out, heads.out[1:2, 1:2])


def test_vectors_of_a_key_head_go_to_the_query_heads_of_its_group(attention, heads):
    kv_heads = attention.n_heads // attention.n_groups
    vectors = randn(BATCH, 5, kv_heads * WIDTH)
    split = heads.split(vectors)
    assert split.shape == (BATCH, attention.n_heads, 5, WIDTH)
    for head in range(attention.n_heads):
        first = head // attention.n_groups * WIDTH
        assert split[:, head].equal(vectors[:, :, first : first + WIDTH])


@pytest.mark.parametrize("normalised", [False, True])
def test_movements_are_normalised_and_rotated_as_the_position_they_are_of(attention, parts, normalised):
    norm = Norm("", randn(WIDTH), None, 0.1, centred=False) if normalised else None
    attention = replace(attention, query=replace(attention.query, norm=norm))
    heads = Heads.of(attention, *parts)

    def queries(outputs):
        x = outputs.view(BATCH, SEQ_LEN, -1, WIDTH).transpose(1, 2)
        x = x if norm is None else F.rms_norm(x, (WIDTH,), norm.weight, norm.eps)
        return (x if attention.rotate is None else attention.rotate(x)) * attention.scale

    same(heads.query, queries(parts[0]))
    direction = randn(*parts[0].shape)
    _, expected = torch.autograd.functional.jvp(queries, parts[0], direction)
    for pairs in pair_blocks(pairs_of(sparse_matrix(BATCH * SEQ_LEN, 3, 0.3)), BATCH, SEQ_LEN):
        at_pairs = pairs.placed(direction[:, pairs.block])
        moved = heads.moved(pairs, heads.split(at_pairs), heads.query_norm) * attention.scale
        same(moved, pairs.placed(expected[:, :, pairs.block]))


@pytest.mark.parametrize("window", [1, 3, 8])
def test_windows_hide_what_is_too_far(attention, parts, qkv, window):
    heads = Heads.of(replace(attention, window=window), *parts)
    seen = torch.ones(SEQ_LEN, SEQ_LEN, dtype=torch.bool).tril().triu(1 - window)
    q, k, v = qkv
    expected = (q @ k.transpose(-1, -2) / WIDTH**0.5).masked_fill(~seen, float("-inf")).softmax(-1)
    everything = slice(0, SEQ_LEN)
    same(heads.by_query(everything, everything), expected)
    same(heads.by_key(everything, everything), expected.transpose(-1, -2))
    same(heads.out - heads.value, expected @ v - v)


@given(st.integers(1, 5000))
def test_blocks_of_positions_are_few_and_none_is_short(seq_len):
    blocks = position_blocks(seq_len)
    assert [i for block in blocks for i in range(block.start, block.stop)] == list(range(seq_len))
    assert len(blocks) <= 8
    assert len(blocks) == 1 or min(b.stop - b.start for b in blocks[:-1]) >= 16
    assert len({block.stop - block.start for block in blocks[:-1]}) <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.one_of(st.integers(1, 5), st.integers(30, 70)),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.sampled_from([1, 2000, 1 << 30]),
)
def test_pair_blocks_keep_every_pair_once(batch, seq_len, density, nbytes):
    matrix = sparse_matrix(batch * seq_len, 3, density)
    blocks = pair_blocks(pairs_of(matrix), batch, seq_len)
    assert [pairs.block for pairs in blocks] == position_blocks(seq_len)
    workspace = Workspace(nbytes, torch.device("cpu"))
    found = []
    for pairs in blocks:
        for rows, part in pairs.pieces(workspace, 100, 300):
            assert part.source.shape[0] == rows.stop - rows.start
            for row, slot in part.weight.nonzero().tolist():
                position = (rows.start + row) * seq_len + pairs.block.start + int(part.position[row, slot])
                assert int(part.position[row, slot]) < pairs.block.stop - pairs.block.start
                found.append((position, int(part.source[row, slot]), float(part.weight[row, slot])))
    expected = [(p, s, float(matrix[p, s])) for p, s in matrix.nonzero().tolist()]
    assert sorted(found) == sorted(expected)


def test_values_are_placed_at_the_positions_of_pairs():
    matrix = sparse_matrix(2 * 40, 3, 0.2)
    by_row, by_head = randn(2, 40, 5), randn(2, 3, 40, 5)
    write = randn(3, 5)
    for pairs in pair_blocks(pairs_of(matrix), 2, 40):
        rows, rows_by_head = pairs.placed(by_row[:, pairs.block]), pairs.placed(by_head[:, :, pairs.block])
        for row, slot in pairs.weight.nonzero().tolist():
            position = pairs.block.start + int(pairs.position[row, slot])
            assert rows[row, slot].equal(by_row[row, position])
            assert rows_by_head[row, :, slot].equal(by_head[row, :, position])
        same(pairs.weighted(write), write[pairs.source] * pairs.weight[..., None])
