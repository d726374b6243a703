"""Figures of whole and of broken decompositions, against float64 computations that share no code with them."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lit_attr.decomposition.diagnostics import MAX_KL, MAX_WEIGHT_ERROR, Diagnostics, diagnose
from lit_attr.decomposition.load import load_run
from lit_attr.decomposition.untrained import Neurons, Svd
from lit_attr.decomposition.untrained.decompose import decompose
from lit_attr.topology.paths import path_table
from tests.huggingface_toys import VARIANTS, huggingface_model, huggingface_target
from tests.toys import ARCHITECTURES, random_tokens, toy_model

TOKENS = random_tokens(3, 8, vocab=5)


def by_definition(model, tokens):
    """The figures from whole-batch forwards in float64."""
    ci = torch.cat(list(model.causal_importance(tokens).values()), -1).double()
    errors = {}
    for layer, path in model.paths.items():
        module, parts = model.target_model.get_submodule(path), model.components(layer)
        weight = module.weight.double()
        product = parts.V.double() @ parts.U.double()
        product = product.T if isinstance(module, torch.nn.Linear) else product
        errors[layer] = float(torch.linalg.matrix_norm(weight - product) / torch.linalg.matrix_norm(weight))
    with torch.no_grad():
        p = F.log_softmax(model.target_model(tokens).double(), -1).flatten(0, 1)
        q = F.log_softmax(model.component_forward(tokens).logits.double(), -1).flatten(0, 1)
    worst = max(errors, key=errors.get)
    kl = float(F.kl_div(q, p, log_target=True, reduction="batchmean"))
    dead = float((ci == 0).all(0).all(0).double().mean())
    return Diagnostics(tokens.numel(), float(ci.mean()), dead, errors[worst], worst, kl)


def assert_figures(found, expected, tolerance):
    assert (found.n_tokens, found.worst_matrix) == (expected.n_tokens, expected.worst_matrix)
    for name in ("mean_ci", "dead_share", "weight_error", "kl"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=tolerance, abs=1e-10), name


@pytest.mark.parametrize("chunk", [1 << 22, 20])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_figures_by_their_definition(architecture, chunk, monkeypatch):
    monkeypatch.setattr("lit_attr.decomposition.diagnostics._CHUNK", chunk)
    model = toy_model(architecture)
    expected = by_definition(model, TOKENS)
    assert 0 < expected.dead_share < 1
    assert min(expected.mean_ci, expected.weight_error, expected.kl) > 0.05
    assert_figures(diagnose(model, TOKENS), expected, 1e-10)


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_figures_on_models_of_transformers(variant):
    model = huggingface_model(variant)
    assert_figures(diagnose(model, TOKENS), by_definition(model, TOKENS), 1e-6)


def test_autocast_makes_no_difference():
    model = toy_model(dtype=torch.float32)
    expected = diagnose(model, TOKENS)
    assert_figures(expected, by_definition(model, TOKENS), 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert diagnose(model, TOKENS) == expected


def test_draws_of_binomial_sampling_are_those_of_the_batch():
    model = toy_model(sampling="binomial")
    ci = torch.cat(list(model.causal_importance(TOKENS, batch_id=5).values()), -1)
    assert diagnose(model, TOKENS, batch_id=5).mean_ci == pytest.approx(float(ci.mean()), rel=1e-10)
    assert diagnose(model, TOKENS, batch_id=6).mean_ci != pytest.approx(float(ci.mean()), rel=1e-4)


@pytest.mark.parametrize("decomposition", [Svd(threshold=0.1), Neurons(threshold=0.1)], ids=str)
@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_decompositions_without_training_are_sound(variant, decomposition):
    target = huggingface_target(variant, torch.float32)
    diagnostics = diagnose(decompose(target, path_table(VARIANTS[variant][0]), decomposition), TOKENS)
    assert diagnostics.weight_error < 1e-6
    assert diagnostics.kl < 1e-6
    assert diagnostics.warnings() == []


def sound_model():
    return decompose(huggingface_target("gpt2", torch.float32), path_table(VARIANTS["gpt2"][0]), Svd(threshold=0.1))


@pytest.mark.parametrize(("factor", "error"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 2.0)])
def test_a_broken_matrix_is_named(factor, error):
    model = sound_model()
    model.components("1.mlp.down").U.mul_(factor)
    diagnostics = diagnose(model, TOKENS)
    assert (diagnostics.worst_matrix, diagnostics.weight_error) == ("1.mlp.down", pytest.approx(error, rel=1e-5))
    assert diagnostics.warnings()[0] == (
        "the components of 1.mlp.down do not sum to its matrix: the relative error is "
        f"{diagnostics.weight_error:.3g}, expected at most 0.7"
    )


def test_all_causal_importances_zero():
    model = sound_model()
    model.ci_fn.forward = lambda inputs: {
        path: x.new_zeros(*x.shape[:2], model.components(layer).n_components)
        for (layer, path), x in zip(model.paths.items(), inputs.values(), strict=True)
    }.items()
    diagnostics = diagnose(model, TOKENS)
    assert (diagnostics.mean_ci, diagnostics.dead_share) == (0, 1)
    assert diagnostics.warnings() == [
        "every causal importance is zero on the first 24 tokens: components then get no attributions as sources"
    ]


SOUND = Diagnostics(8, 0.1, 0.5, MAX_WEIGHT_ERROR, "0.mlp.up", MAX_KL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dead_share": 1.0}, "every causal importance is zero"),
        ({"weight_error": 0.71}, "the components of 0.mlp.up do not sum to its matrix: the relative error is 0.71,"),
        ({"weight_error": math.inf}, "the relative error is inf"),
        ({"weight_error": math.nan}, "the relative error is nan"),
        ({"kl": 0.11}, "predictions differ by 0.11 nats a token"),
        ({"kl": math.nan}, "predictions differ by nan nats a token"),
    ],
)
def test_bounds(change, message):
    assert SOUND.warnings() == []
    (warning,) = replace(SOUND, **change).warnings()
    assert message in warning


def test_matrices_of_zeros_and_of_no_numbers():
    model = sound_model()
    model.target_model.get_submodule(model.paths["0.mlp.up"]).weight.zero_()
    assert diagnose(model, TOKENS).weight_error == math.inf
    model.components("0.mlp.up").U.zero_()
    assert diagnose(model, TOKENS).weight_error < 1e-6
    model.components("1.mlp.up").U.fill_(math.nan)
    diagnostics = diagnose(model, TOKENS)
    assert diagnostics.worst_matrix == "1.mlp.up"
    assert math.isnan(diagnostics.weight_error)
    assert len(diagnostics.warnings()) == 2
    entries = diagnostics.entries()
    assert (entries["weight_error"], entries["kl"], entries["n_tokens"]) == (None, None, 24)


def test_token_ids_that_the_model_rules_out():
    model = toy_model()
    two = torch.tensor([2])
    model.target_model.register_forward_hook(lambda module, args, out: out.index_fill(-1, two, -math.inf))
    with torch.no_grad():
        p, q = (
            logits[..., torch.arange(model.vocab_size) != 2].log_softmax(-1)
            for logits in (model.target_model(TOKENS), model.component_forward(TOKENS).logits)
        )
    expected = float((p.exp() * (p - q)).sum(-1).mean())
    assert diagnose(model, TOKENS).kl == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("run", ["demo", "s-kjvmlp02", "s-kjvgpt02"])
def test_trained_runs_are_sound(run, shared):
    model = load_run(run if run == "demo" else shared / "spd_out" / "runs" / f"spd-{run}").model
    tokens = random_tokens(2, 32, vocab=model.vocab_size)  # no text of theirs: a harder test
    diagnostics = diagnose(model, tokens)
    assert_figures(diagnostics, by_definition(model, tokens), 1e-4)
    assert diagnostics.warnings() == []
