"""What every engine says of itself, and engines that are combined."""

import pytest
import torch

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine import CombinedEngine
from lit_attr.attribution.forward_mode.engine import ForwardModeEngine
from tests.attribution.closed_form.examples import MB, closed_form_engine, random_ci
from tests.attribution.test_engine_choice import engine_of, partial_model
from tests.sums import layout_of, zero_sums
from tests.toys import random_tokens, toy_model

TOKENS = random_tokens(2, 6)
MODEL = toy_model()
ENGINES = {
    "closed_form": closed_form_engine(MODEL, workspace_bytes=8 * MB),
    "forward_mode": ForwardModeEngine(MODEL, layout_of(trace_topology(MODEL)), 4),
    "autograd": AutogradEngine(layout_of(trace_topology(MODEL)), 4),
}


def added(engine, model=MODEL, tokens=TOKENS):
    sums = zero_sums(trace_topology(model), torch.float64)
    ci = random_ci(model, tokens, 0.5)
    engine.add_(sums, model.component_forward(tokens, graph=engine.needs_graph), ci)
    return sums


@pytest.mark.parametrize(
    ("name", "graph", "reserved"), [("closed_form", False, 8 * MB), ("forward_mode", False, 0), ("autograd", True, 0)]
)
def test_needs_and_reserves(name, graph, reserved):
    engine = ENGINES[name]
    assert (engine.needs_graph, engine.reserved_bytes) == (graph, reserved)
    assert engine.truncated().reserved_bytes == 0
    adds = any(tensor.any() for _, tensor in added(engine.truncated()).named())
    assert adds == (name != "closed_form")


def test_combined_engines_add_up():
    both = CombinedEngine(ENGINES)
    assert (both.needs_graph, both.reserved_bytes) == (True, 8 * MB)
    found, parts = added(both), [added(engine) for engine in ENGINES.values()]
    for (name, total), *those in zip(found.named(), *(part.named() for part in parts), strict=True):
        torch.testing.assert_close(total, sum(tensor for _, tensor in those), rtol=1e-12, atol=1e-12, msg=name)


def test_nothing_combined_adds_nothing():
    nothing = CombinedEngine({})
    assert (nothing.needs_graph, nothing.reserved_bytes) == (False, 0)
    assert not any(tensor.any() for _, tensor in added(nothing).named())


def test_truncated_engines_keep_what_grows_with_a_batch():
    truncated = engine_of("auto", partial_model("only MLPs")).truncated()
    assert list(truncated.engines) == ["closed_form", "forward_mode"]
    assert truncated.reserved_bytes == 0
    assert not truncated.engines["closed_form"].adds
    assert engine_of("autograd", partial_model("only MLPs")).truncated().engines["autograd"].first_only
