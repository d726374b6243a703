import dataclasses

import pytest
import torch
from torch import nn

from lit_attr.decomposition.untrained import Decomposition, Neurons, Svd
from lit_attr.decomposition.untrained.decompose import decompose
from lit_attr.errors import ConfigurationError, UnsupportedModelError
from tests.decomposition.untrained.targets import NAMES, make_target
from tests.toys import random_tokens


class Given(Decomposition):
    """Whatever a test says."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def factors(self, layer, weight):
        return self.rule(layer, weight)


@pytest.mark.parametrize("decomposition", [Svd(), Neurons()], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_all_components_on_is_the_original(name, decomposition):
    target, table = make_target(name)
    tokens = random_tokens(2)
    expected = target(tokens).detach()
    capture = decompose(target, table, decomposition).component_forward(tokens)
    assert float((capture.logits - expected).norm() / expected.norm()) < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_matrices(name):
    target, table = make_target(name)
    by_svd, by_neurons = (decompose(target, table, kind()) for kind in (Svd, Neurons))
    assert list(by_svd.paths) == [f"{block}.{matrix}" for block in range(2) for matrix in table.blocks]
    assert list(by_neurons.paths) == [layer for layer in by_svd.paths if ".attn" not in layer]
    assert len(set(by_neurons.n_components.values())) == 1
    for layer, count in by_svd.n_components.items():
        parts = by_svd.components(layer)
        assert count == min(parts.V.shape[0], parts.U.shape[1])


def test_singular_components():
    parts = decompose(*make_target("gpt2"), Svd()).components("1.mlp.up")
    identity = torch.eye(parts.n_components, dtype=torch.float64)
    torch.testing.assert_close(parts.V.T @ parts.V, identity)
    lengths = parts.U.norm(dim=1)
    torch.testing.assert_close(parts.U @ parts.U.T, torch.diag(lengths**2))
    assert lengths.diff().le(0).all()
    assert parts.V.gather(0, parts.V.abs().argmax(0, keepdim=True)).gt(0).all()


@pytest.mark.parametrize("name", ["GPT2Simple", "gpt2", "llama"])
def test_neurons(name):
    """Activations in front of the activation function and behind it; biases are no part of them."""
    target, table = make_target(name)
    model = decompose(target, table, Neurons())
    up, down = list(model.paths)[-2:]
    seen = {}
    for layer, when in ((up, "out"), (down, "in")):
        module = target.get_submodule(table.path(layer))
        module.register_forward_hook(lambda m, x, y, w=when: seen.update({w: x[0] if w == "in" else y}))
    target(tokens := random_tokens(2))
    capture = model.component_forward(tokens)
    bias = model.components(up).bias
    torch.testing.assert_close(capture.pre[up] + (0 if bias is None else bias), seen["out"])
    torch.testing.assert_close(capture.pre[down], seen["in"])


@pytest.mark.parametrize("name", ["LlamaSimple", "gpt2"])
def test_one_identity_for_all(name):
    model = decompose(*make_target(name, torch.float32), Neurons())

    def identities():
        layers = [model.components(layer) for layer in model.paths]
        found = [parts.V if parts.V.shape[0] == parts.V.shape[1] else parts.U for parts in layers]
        for identity in found:
            torch.testing.assert_close(identity, torch.eye(12, dtype=identity.dtype))
        return {identity.data_ptr() for identity in found}

    before = identities()
    assert len(before) == 1
    after = model.to(torch.float64) and identities()
    assert len(after) == 1
    assert before != after


def test_patterns_choose_matrices():
    target, table = make_target("LlamaSimple")
    model = decompose(target, table, Svd(matrices=["1.attn.*", "*.glu.down"]))
    assert list(model.paths) == ["0.glu.down", *(f"1.attn.{n}" for n in "qkvo"), "1.glu.down"]
    with pytest.raises(
        ConfigurationError, match=r"Svd: the pattern '\*.mlp.up' of matrices matches none .* 0.attn.q, "
    ):
        decompose(target, table, Svd(matrices=["*.glu.up", "*.mlp.up"]))
    with pytest.raises(ConfigurationError, match=r"Neurons\(.*\) decomposes no matrix of LlamaSimple"):
        decompose(target, table, Neurons(matrices=["*.attn.*"]))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda layer, w: (w, 2 * torch.eye(w.shape[1], dtype=w.dtype)), r"multiply to the matrix.* found 1$"),
        (lambda layer, w: (w * float("nan"), None), "multiply to the matrix.* found nan"),
        (lambda layer, w: (w.T, w), r"0.attn.q must have the shapes \(8, C\) and \(C, 8\)|multiply"),
        (lambda layer, w: (w[:, :3], w), r"must have the shapes \(8, C\) and \(C, 8\), found \(8, 3\) and \(8, 8\)"),
        (lambda layer, w: (w[1:], None), r"found \(7, 8\) and None"),
        (lambda layer, w: (None, w[:, 1:]), r"found None and \(8, 7\)"),
    ],
)
def test_factors_that_are_not_those_of_the_matrix(rule, message):
    with pytest.raises(ConfigurationError, match=message):
        decompose(*make_target("LlamaSimple"), Given(rule))


def test_rounding_is_no_mistake():
    decompose(*make_target("LlamaSimple", torch.float32), Svd())


def test_tables_that_do_not_fit():
    target, table = make_target("LlamaSimple")
    norm = dataclasses.replace(table, blocks={"attn.q": "h.{block}.rms_1"})
    with pytest.raises(UnsupportedModelError, match=r"0.attn.q \(h.0.rms_1\) must be an nn.Linear or a Conv1D, found"):
        decompose(target, norm, Svd())


def test_the_target_keeps_its_weights():
    target, table = make_target("gpt2")
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    model = decompose(target, table, Svd())
    assert {name: tensor for name, tensor in target.state_dict().items() if not tensor.equal(before[name])} == {}
    assert not any(p.requires_grad for p in model.parameters())
    assert isinstance(model, nn.Module)


class Own(Svd):
    """Gives what it is told to give."""

    def __init__(self, given):
        super().__init__()
        self.given = given

    def factors(self, layer, weight):
        return self.given(*super().factors(layer, weight))


def fail(V, U):
    raise KeyError("nowhere")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda V, U: V, r"Own\.factors\('0\.attn\.q', \.\.\.\) must give two tensors, .* or None; found a Tensor"),
        (lambda V, U: (V, U.tolist()), r"must give two tensors, either of them None, or None; found a tuple"),
        (fail, r"Own\.factors\('0\.attn\.q', \.\.\.\) failed with KeyError: 'nowhere'"),
    ],
)
def test_a_class_that_gives_no_factors(given, message):
    with pytest.raises(ConfigurationError, match=message):
        decompose(*make_target("LlamaSimple"), Own(given))


def test_factors_of_another_precision_are_taken():
    target, table = make_target("LlamaSimple", torch.float32)
    model = decompose(target, table, Own(lambda V, U: (V.double(), U.double())))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_importances_of_another_shape_are_refused():
    class Short(Svd):
        def importance(self, activations, norms):
            return activations[..., :1]

    model = decompose(*make_target("LlamaSimple"), Short())
    with pytest.raises(ConfigurationError, match=r"Short\.importance must give the shape of the activations, "):
        model.causal_importance(random_tokens(1, 4))
