import pytest
import torch

from lit_attr.attribution.batch import add_batch_, add_batch_with_ci_
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.topology.sums import Sums
from tests.attribution.brute_force import brute_force
from tests.attribution.test_autograd import assert_equal
from tests.attribution.test_engine_choice import engine_of
from tests.toys import random_tokens, toy_model

TOKENS = random_tokens(2, 4, vocab=5)


@pytest.mark.parametrize("name", ["auto", "autograd"])
def test_equals_brute_force_where_the_graph_is_kept_and_where_not(name):
    model = toy_model()
    sums = Sums.zeros(trace_topology(model), torch.float64)
    add_batch_(sums, model, trace_topology(model), engine_of(name, model), TOKENS)
    assert_equal(sums, brute_force(model, TOKENS))


def test_rows_of_a_batch_keep_their_draws():
    model = toy_model(sampling="binomial")
    topology, engine = trace_topology(model), engine_of("auto", model)
    whole, parts, other = (Sums.zeros(topology, torch.float64) for _ in range(3))
    add_batch_(whole, model, topology, engine, TOKENS, batch_id=3)
    for row in range(2):
        add_batch_(parts, model, topology, engine, TOKENS[row : row + 1], batch_id=3, first_row=row)
    assert_equal(parts, whole)
    add_batch_(other, model, topology, engine, TOKENS, batch_id=4)
    assert not torch.allclose(other.ci["0.mlp.up"], whole.ci["0.mlp.up"])


@pytest.mark.parametrize("name", ["auto", "autograd"])
def test_autocast_is_for_the_forwards_alone(name):
    model = toy_model(dtype=torch.float32)
    topology, engine = trace_topology(model), engine_of(name, model)
    sums, expected = (Sums.zeros(topology, torch.float32) for _ in range(2))
    seen = []
    with torch.autocast("cpu", torch.bfloat16):
        ci = model.causal_importance(TOKENS)
        capture = model.component_forward(TOKENS)

        class Watching:
            needs_graph, reserved_bytes, truncated = engine.needs_graph, 0, engine.truncated

            def add_(self, sums, capture, ci):
                seen.append((torch.is_autocast_enabled("cpu"), capture.logits.dtype))
                engine.add_(sums, capture, ci)

        add_batch_with_ci_(sums, model, topology, Watching(), TOKENS, ci)
    assert seen == [(False, torch.bfloat16)]
    engine.add_(expected, capture, ci)
    assert sums.regular["1.mlp.up"]["0.attn.o"].equal(expected.regular["1.mlp.up"]["0.attn.o"])
    assert sums.logit_sq.equal(capture.logits.float().square().sum((0, 1)))
