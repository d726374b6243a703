import pytest
import torch

from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.targets.gpt2_simple import GPT2Simple, GPT2SimpleConfig
from tools.demo.decompose import DecompositionTraining, decompose
from tools.demo.masked import MaskedTarget, lower_leaky, upper_leaky
from tools.demo.objective import faithfulness_error, importance_penalty, kl_to

PATH = "h.0.attn.v_proj"


@pytest.fixture
def target():
    torch.manual_seed(0)
    config = GPT2SimpleConfig(block_size=8, vocab_size=11, n_layer=1, n_head=2, n_embd=8)
    return GPT2Simple(config).eval().requires_grad_(False)


@pytest.fixture
def exact(target):
    """Components that sum to the matrix: one for each input dimension."""
    matrix = target.get_submodule(PATH)
    components = LinearComponents(8, 8, 8, bias=True)
    components.V.data.copy_(torch.eye(8))
    components.U.data.copy_(matrix.weight.T)
    components.bias.copy_(matrix.bias)
    return {PATH: components}


TOKENS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])


def test_all_components_on_is_the_target(target, exact):
    masked = MaskedTarget(target, exact)
    torch.testing.assert_close(masked(TOKENS, {PATH: torch.ones(2, 4, 8)}), target(TOKENS))
    assert faithfulness_error(target, exact).item() == 0


def test_a_mask_of_zeros_leaves_the_bias(target, exact):
    logits = MaskedTarget(target, exact)(TOKENS, {PATH: torch.zeros(2, 4, 8)})
    target.get_submodule(PATH).weight.data.zero_()
    torch.testing.assert_close(logits, target(TOKENS))


def test_lower_leaky_passes_a_part_of_the_gradient_that_would_raise_a_value_below_zero():
    x = torch.tensor([-1.0, -1.0, 0.5, 2.0], requires_grad=True)
    lower_leaky(x).backward(torch.tensor([-1.0, 1.0, 1.0, -1.0]))
    torch.testing.assert_close(x.grad, torch.tensor([-0.01, 0.0, 1.0, 0.0]))
    torch.testing.assert_close(lower_leaky(x), torch.tensor([0.0, 0.0, 0.5, 1.0]))


def test_upper_leaky_still_falls_above_one():
    torch.testing.assert_close(upper_leaky(torch.tensor([-1.0, 0.5, 2.0])), torch.tensor([0.0, 0.5, 1.01]))


def test_penalty_counts_components_as_the_exponent_goes_to_zero():
    x = {"a": torch.tensor([[[0.5, 0.01, -2.0]]]), "b": torch.tensor([[[1.0]]])}
    assert importance_penalty(x, 1.0).item() == pytest.approx(1.51)
    assert importance_penalty(x, 0.01).item() == pytest.approx(3 + 0.76, abs=0.1)  # 1e-12 ** 0.01 is 0.76


def test_kl_of_known_distributions():
    reference, other = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert kl_to(reference, reference).item() == pytest.approx(0, abs=1e-7)
    assert kl_to(reference, other).item() == pytest.approx(0.143841, abs=1e-5)


def test_training_depends_on_its_seed_alone(target):
    training = DecompositionTraining(steps=2, batch_size=2, faithfulness_steps=2)
    options = {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": [4]}

    def components(seed, noise):
        torch.manual_seed(noise)
        return decompose(target, {PATH: 5}, options, TOKENS, training, seed)[0][PATH].V

    assert torch.equal(components(0, noise=1), components(0, noise=2))
    assert not torch.equal(components(0, noise=1), components(3, noise=1))
