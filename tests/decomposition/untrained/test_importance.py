import pytest
import torch

from lit_attr.decomposition.untrained import Neurons, Svd
from lit_attr.decomposition.untrained.decompose import decompose
from lit_attr.errors import ConfigurationError
from tests.decomposition.untrained.targets import make_target
from tests.toys import random_tokens


@pytest.mark.parametrize("kind", [Svd, Neurons])
@pytest.mark.parametrize("name", ["GPT2Simple", "gpt2", "qwen3"])
def test_shares(name, kind):
    """Component by component, from the inputs of the unmodified model."""
    target, table = make_target(name)
    threshold = 0.1
    model = decompose(target, table, kind(threshold=threshold))
    inputs = {}
    for layer, path in model.paths.items():
        target.get_submodule(path).register_forward_pre_hook(lambda m, x, at=layer: inputs.update({at: x[0]}))
    target(tokens := random_tokens(3))
    found = model.causal_importance(tokens)
    assert list(found) == list(model.paths)
    for layer, ci in found.items():
        parts = model.components(layer)
        written = [
            ((inputs[layer] @ parts.V[:, c])[..., None] * parts.U[c]).norm(dim=-1) for c in range(parts.n_components)
        ]
        shares = torch.stack([w / sum(written) for w in written], -1)
        assert ci.equal((shares > threshold).double())
        assert 0 < ci.sum() < ci.numel()


def test_a_share_must_exceed_the_threshold():
    activations = torch.tensor([[1.0, -3.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0]])
    norms = torch.tensor([1.0, 1.0, 1.0, 1.0])
    expected = {0.0: [[1, 1, 0, 1], [0] * 4, [0, 1, 0, 0]], 0.5: [[0, 0, 0, 0], [0] * 4, [0, 1, 0, 0]]}
    for threshold, rows in expected.items():
        assert Svd(threshold).importance(activations, norms).tolist() == rows
    assert Svd(0.5).importance(activations, torch.tensor([9.0, 1.0, 99.0, 1.0])).tolist()[0] == [1, 0, 0, 0]


def test_autocast_does_not_round_shares():
    activations = torch.tensor([[1.0, 1.0078125, 98.0]], dtype=torch.bfloat16)
    found = Svd(0.01005).importance(activations, torch.ones(3))
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize("kind", [Svd, Neurons])
def test_threshold_out_of_range(kind, threshold):
    with pytest.raises(ConfigurationError, match=rf"{kind.__name__}: threshold must be at least 0 and below 1"):
        kind(threshold=threshold)
    kind(threshold=0.0)
    kind(threshold=0.999)
