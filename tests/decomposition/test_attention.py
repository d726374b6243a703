from collections.abc import Callable
from math import sqrt

import pytest
import torch
from torch import Tensor

from lit_attr.decomposition.targets.attention import CausalSelfAttention, _CausalAttention
from lit_attr.decomposition.targets.layers import Rotary
from tests.decomposition import plain

SHAPE = (2, 3, 5, 4)
N_GRADIENTS = 6


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) / sqrt(q.shape[-1])
    future = torch.triu(torch.full(scores.shape[-2:], -torch.inf, dtype=q.dtype), 1)
    return torch.softmax(scores + future, -1) @ v


def leaves(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(SHAPE, dtype=torch.float64, generator=generator) * scale for _ in range(3)]
    return [x.to(dtype).requires_grad_() for x in made]


def directions(*n: int) -> Tensor:
    return torch.randn(*n, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients(
    function: Callable[..., Tensor], at: list[Tensor], direction: Tensor, batched: bool = False
) -> list[Tensor]:
    return list(torch.autograd.grad(function(*at), at, direction, is_grads_batched=batched))


def test_value_is_that_of_the_formula():
    torch.testing.assert_close(_CausalAttention.apply(*leaves()), explicit(*leaves()), rtol=0, atol=1e-14)


def test_gradient_agrees_with_finite_differences():
    small = [x.detach()[:1, :2, :4, :3].clone().requires_grad_() for x in leaves()]
    assert torch.autograd.gradcheck(_CausalAttention.apply, small, check_batched_grad=True)


@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_gradient_is_that_of_the_formula(scale: float):
    at = leaves(scale=scale)
    ours, theirs = (gradients(function, at, directions()) for function in (_CausalAttention.apply, explicit))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


def test_batched_gradients_are_those_of_the_formula_one_by_one():
    at = leaves()
    ours = gradients(_CausalAttention.apply, at, directions(N_GRADIENTS), batched=True)
    singly = [gradients(explicit, at, direction) for direction in directions(N_GRADIENTS)]
    theirs = [torch.stack(parts) for parts in zip(*singly, strict=True)]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_gradient_of_one_input_alone_is_that_of_the_formula(wanted: int):
    def gradient(function: Callable[..., Tensor]) -> Tensor:
        at = [x.detach().requires_grad_(i == wanted) for i, x in enumerate(leaves())]
        return torch.autograd.grad(function(*at), at[wanted], directions())[0]

    torch.testing.assert_close(gradient(_CausalAttention.apply), gradient(explicit), rtol=0, atol=1e-13)


def test_later_positions_have_no_influence():
    at = leaves()
    direction = directions()
    direction[..., 2:, :] = 0
    for gradient in gradients(_CausalAttention.apply, at, direction):
        assert not gradient[..., 2:, :].any()
        assert gradient[..., :2, :].any()


def test_gradient_of_bfloat16_is_computed_in_float32_and_rounded_once():
    narrow = leaves(torch.bfloat16)
    wide = [x.detach().float().requires_grad_() for x in narrow]
    direction = directions().bfloat16()
    ours = gradients(_CausalAttention.apply, narrow, direction)
    theirs = gradients(explicit, wide, direction.float())
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("adjacent", [None, False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_layer_and_its_gradient_are_the_plain_ones(n_kv_heads: int, adjacent: bool | None, fused: bool):
    layer = CausalSelfAttention(16, 4, n_kv_heads, bias=True, fused=fused).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    rotary = None if adjacent is None else Rotary(4, 7.0, 8, adjacent_pairs=adjacent)
    angle = torch.arange(6)[:, None] / 7.0 ** (torch.arange(2) / 2)
    x = torch.randn(2, 6, 16, dtype=torch.float64, generator=generator).requires_grad_()

    def expected(x: Tensor) -> Tensor:
        if fused:
            q, k, v = layer.c_attn(x).split([16, 4 * n_kv_heads, 4 * n_kv_heads], -1)
        else:
            q, k, v = layer.q_proj(x), layer.k_proj(x), layer.v_proj(x)
        return layer.o_proj(plain.attention(q, k, v, 4, None if rotary is None else angle, bool(adjacent)))

    ours, theirs = layer(x, rotary), expected(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    direction = torch.randn(ours.shape, dtype=torch.float64, generator=generator)
    found, wanted = (torch.autograd.grad(y, [x, *layer.parameters()], direction) for y in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("adjacent", [False, True])
def test_rotation_is_the_plain_one_and_ends_with_the_positions(adjacent: bool):
    x = directions()
    position = torch.tensor([0, 1, 2, 2, 2])
    expected = plain.rotate(x, position[:, None] / 7.0 ** (torch.arange(2) / 2), adjacent)
    torch.testing.assert_close(Rotary(4, 7.0, 3, adjacent_pairs=adjacent)(x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("adjacent", [False, True])
def test_vectors_are_rotated_as_the_positions_they_are_given(adjacent: bool):
    rotary, x = Rotary(4, 7.0, 3, adjacent_pairs=adjacent), directions()
    assert torch.equal(rotary(x, torch.arange(x.shape[-2])), rotary(x))
    positions = torch.tensor([2, 0, 7, 1, 1])
    expected = torch.stack(
        [rotary(x[..., i, None, :].expand(*x.shape[:-2], 9, 4))[..., p, :] for i, p in enumerate(positions)], -2
    )
    assert torch.equal(rotary(x, positions), expected)
    by_row = torch.stack([positions, positions.flip(0)])[:, None]
    both = torch.stack([rotary(x[0], by_row[0, 0]), rotary(x[1], by_row[1, 0])])
    assert torch.equal(rotary(x[:2], by_row), both)
