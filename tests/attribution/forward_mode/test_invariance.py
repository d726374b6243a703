"""What does not depend on precision, batches and passes, and what is left behind."""

from dataclasses import replace

import pytest
import torch

from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.forward_mode.engine import ForwardModeEngine
from lit_attr.harvest.memory import PeakMemory
from tests.attribution.closed_form.examples import assert_close, random_ci
from tests.attribution.forward_mode.test_engine import TOKENS, harvest, partial_model
from tests.attribution.named import named_result
from tests.sums import layout_of, zero_sums
from tests.toys import random_tokens


def test_activations_of_half_precision():
    """A harvest's forwards may run in bfloat16; its attributions are computed in the model's own dtype."""
    model = partial_model("LlamaSimpleMLP", "only MLPs", torch.float32)
    ci, topology = random_ci(model, TOKENS, 0.5), trace_topology(model)
    with torch.autocast("cpu", torch.bfloat16):
        capture = model.component_forward(TOKENS, graph=False)
    assert capture.post["0.mlp.up"].dtype == torch.bfloat16
    single = {name: {k: v.float() for k, v in getattr(capture, name).items()} for name in ("pre", "post")}
    found, expected = (zero_sums(topology, torch.float32) for _ in range(2))
    engine = ForwardModeEngine(model, layout_of(topology), 4)
    engine.add_(found, capture, ci)
    engine.add_(expected, replace(capture, **single), ci)
    assert expected.attr["1.mlp.up"]["0.mlp.down"].numbers.any()
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("name", ["only MLPs", "only attention"])
@pytest.mark.parametrize("per_pass", [1, 2, 100])
def test_tangents_per_pass_and_batch_size_invariance(name, per_pass):
    model = partial_model("GPT2Simple", name)
    ci, topology = random_ci(model, TOKENS, 0.4), trace_topology(model)
    sums = zero_sums(topology, torch.float64)
    engine = ForwardModeEngine(model, layout_of(topology), per_pass)
    for rows in (slice(2, 3), slice(0, 2)):
        capture = model.component_forward(TOKENS[rows], graph=False)
        engine.add_(sums, capture, {layer: values[rows] for layer, values in ci.items()})
    assert_close(named_result(sums, model), harvest(model, ci), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["only MLPs", "only attention"])
def test_truncated_engine_shows_the_memory_of_the_whole(name):
    model = partial_model("LlamaSimple", name)
    tokens, topology = random_tokens(2, 8), trace_topology(model)
    engine = ForwardModeEngine(model, layout_of(topology), 3)

    def peak(of, density):
        sums, ci = zero_sums(topology, torch.float64), random_ci(model, tokens, density)
        with PeakMemory() as memory:
            of.add_(sums, model.component_forward(tokens, graph=False), ci)
        return memory.peak

    # Whatever is active in the rows that are looked at, and whether or not a row needs many passes.
    shown = peak(engine.truncated(), 0.0)
    assert peak(engine, 1.0) <= 1.02 * shown
    assert peak(engine, 0.2) <= 1.02 * shown


def test_nothing_remains_on_the_model():
    model = partial_model("LlamaSimple", "only MLPs")
    harvest(model, random_ci(model, TOKENS, 0.5))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
