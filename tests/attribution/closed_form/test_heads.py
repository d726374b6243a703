from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lit_attr.attribution.closed_form import pair_blocks as layout
from lit_attr.attribution.closed_form.heads import Heads
from lit_attr.decomposition.anatomy import Norm
from tests.attribution.closed_form.test_pair_blocks import pair_table
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
    monkeypatch.setattr(layout, "_SHORTEST_BLOCK", request.param)
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
    same(heads.pattern(queries, keys), pattern[..., queries, keys])
    same(heads.pattern_by_key(queries, keys), pattern[..., queries, keys].transpose(-1, -2))


def test_parts(heads, pattern):
    part = heads.part(slice(1, 2), slice(1, 2))
    assert part.sizes == (1, 1, SEQ_LEN, WIDTH)
    same(part.pattern(slice(0, 8), slice(0, 8)), pattern[1:2, 1:2])
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
def test_tangents_are_normalised_and_rotated_as_the_position_they_are_of(attention, parts, normalised):
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
    for pairs in pair_table(sparse_matrix(BATCH * SEQ_LEN, 3, 0.3), BATCH, SEQ_LEN):
        at_pairs = pairs.gather(direction[:, pairs.block])
        moved = heads.jvp(pairs, heads.split(at_pairs), heads.query_norm) * attention.scale
        same(moved, pairs.gather(expected[:, :, pairs.block]))


@pytest.mark.parametrize("window", [1, 3, 8])
def test_windows_hide_what_is_too_far(attention, parts, qkv, window):
    heads = Heads.of(replace(attention, window=window), *parts)
    seen = torch.ones(SEQ_LEN, SEQ_LEN, dtype=torch.bool).tril().triu(1 - window)
    q, k, v = qkv
    expected = (q @ k.transpose(-1, -2) / WIDTH**0.5).masked_fill(~seen, float("-inf")).softmax(-1)
    everything = slice(0, SEQ_LEN)
    same(heads.pattern(everything, everything), expected)
    same(heads.pattern_by_key(everything, everything), expected.transpose(-1, -2))
    same(heads.out - heads.value, expected @ v - v)
