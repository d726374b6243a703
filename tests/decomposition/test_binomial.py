from copy import deepcopy

import pytest
import torch
from torch import Tensor

from lit_attr.decomposition.model import DecomposedModel
from tests.toys import random_tokens, toy_model

ROWS = 6


def model_of(sampling: str, sigmoid: str = "normal", **options: object) -> DecomposedModel:
    return toy_model(sampling=sampling, sigmoid_type=sigmoid, **options)


@pytest.fixture(scope="module")
def sampled() -> DecomposedModel:
    return model_of("binomial")


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return random_tokens(ROWS)


def concatenated(values: dict[str, Tensor]) -> Tensor:
    return torch.cat(list(values.values()), dim=-1)


def uniforms(model: DecomposedModel, tokens: Tensor, batch_id: int = 0) -> Tensor:
    """The draws, from 1.05 x - 0.05 u, where the logistic function can be inverted well."""
    with_noise = concatenated(model.causal_importance(tokens, batch_id)).logit()
    without = concatenated(model_of("continuous").causal_importance(tokens)).logit()
    return ((1.05 * without - with_noise) / 0.05)[without.abs() < 10]


def test_same_batch_id_gives_the_same_values(sampled: DecomposedModel, tokens: Tensor):
    first, second = (concatenated(sampled.causal_importance(tokens, 7)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("other", [0, 6, 8, 1 << 30])
def test_another_batch_id_gives_other_values(sampled: DecomposedModel, tokens: Tensor, other: int):
    first, second = (concatenated(sampled.causal_importance(tokens, batch_id)) for batch_id in (7, other))
    assert (first != second).all(-1).all()


@pytest.mark.parametrize("at", range(1, ROWS))
def test_splitting_a_batch_does_not_change_the_values(sampled: DecomposedModel, tokens: Tensor, at: int):
    whole = concatenated(sampled.causal_importance(tokens, 7))
    parts = [(tokens[:at], 0), (tokens[at:], at)]
    joined = torch.cat([concatenated(sampled.causal_importance(part, 7, first)) for part, first in parts])
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-12)


def test_every_row_of_every_batch_has_draws_of_its_own(sampled: DecomposedModel, tokens: Tensor):
    same = tokens[:1].expand(ROWS, -1)
    rows = torch.cat([concatenated(sampled.causal_importance(same, batch_id)) for batch_id in range(4)]).flatten(1)
    assert len(rows.unique(dim=0)) == 4 * ROWS


def test_matrices_have_draws_of_their_own(sampled: DecomposedModel, tokens: Tensor):
    noise = {}
    for layer, clean in model_of("continuous").causal_importance(tokens).items():
        noise[layer] = 1.05 * clean.logit() - sampled.causal_importance(tokens, 7)[layer].logit()
    first, second = noise["0.mlp.up"], noise["1.mlp.up"]
    assert ((first - second).abs() > 1e-9).all()


def test_draws_are_uniform_in_the_unit_interval(sampled: DecomposedModel, tokens: Tensor):
    draws = uniforms(sampled, tokens).sort().values
    assert len(draws) > 1000
    assert draws.min() > -1e-8
    assert draws.max() < 1
    # Kolmogorov-Smirnov: the distance of the empirical distribution, at a level of about 1e-5.
    expected = torch.linspace(0, 1, len(draws), dtype=draws.dtype)
    assert (draws - expected).abs().max() < 2.5 / len(draws) ** 0.5


def test_draws_do_not_depend_on_the_sigmoid(sampled: DecomposedModel, tokens: Tensor):
    expected = concatenated(sampled.causal_importance(tokens, 7)).logit().clamp(0, 1)
    found = concatenated(model_of("binomial", "leaky_hard").causal_importance(tokens, 7))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_draws_are_the_same_in_every_precision(tokens: Tensor):
    narrow = model_of("binomial", dtype=torch.float32)
    wide = deepcopy(narrow).double()
    for layer, values in narrow.causal_importance(tokens, 7).items():
        torch.testing.assert_close(values.double(), wide.causal_importance(tokens, 7)[layer], rtol=0, atol=1e-5)


def test_continuous_sampling_ignores_the_batch_id(tokens: Tensor):
    model = model_of("continuous")
    first, second = (concatenated(model.causal_importance(tokens, batch_id, row)) for batch_id, row in ((0, 0), (7, 3)))
    assert torch.equal(first, second)


def test_the_global_random_state_is_left_alone(sampled: DecomposedModel, tokens: Tensor):
    before = torch.get_rng_state()
    sampled.causal_importance(tokens, 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_random_state_does_not_matter(sampled: DecomposedModel, tokens: Tensor):
    values = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            values.append(concatenated(sampled.causal_importance(tokens, 7)))
    assert torch.equal(*values)
