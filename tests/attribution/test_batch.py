import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lit_attr.attribution.batch import add_batch_, add_batch_with_ci_
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine import Whole
from tests.attribution.brute_force import brute_force
from tests.attribution.named import assert_equal, named_result, without_abs
from tests.attribution.test_engine_choice import engine_of
from tests.sums import named_by_source, zero_sums
from tests.toys import ARCHITECTURES, random_tokens, toy_model

TOKENS = random_tokens(2, 4, vocab=5)


@pytest.mark.parametrize("name", ["auto", "autograd"])
@pytest.mark.parametrize("metrics", ["both", "attr"])
def test_equals_brute_force_where_the_graph_is_kept_and_where_not(name, metrics):
    model = toy_model()
    sums = zero_sums(trace_topology(model), torch.float64, metrics=metrics)
    add_batch_(sums, model, trace_topology(model), engine_of(name, model), TOKENS)
    expected = brute_force(model, TOKENS)
    assert_equal(named_result(sums, model), expected if metrics == "both" else without_abs(expected))
    assert (int(sums.n_tokens), int(sums.n_abs_tokens)) == (TOKENS.numel(), TOKENS.numel() * (metrics == "both"))


def test_batches_that_are_summed_without_attr_abs():
    """Sums of `attr_abs` over one batch of two stand for both, and those of `attr` are of both."""
    model = toy_model()
    topology, engine = trace_topology(model), engine_of("auto", model)
    sums, first, second = (zero_sums(topology, torch.float64) for _ in range(3))
    other = random_tokens(3, 4, seed=1)
    for into in (sums, first):
        add_batch_(into, model, topology, engine, TOKENS)
    for into in (sums.signed(), second):
        add_batch_(into, model, topology, engine, other)
    assert (int(sums.n_tokens), int(sums.n_abs_tokens)) == (20, 8)
    found, of_first, of_second = (named_result(some, model) for some in (sums, first, second))
    expected = {
        name: tensor * 20 / 8 if name.startswith("attr_abs/") else tensor + of_second[name]
        for name, tensor in of_first.items()
    }
    assert_equal(found, expected)


def test_rows_of_a_batch_keep_their_draws():
    model = toy_model(sampling="binomial")
    topology, engine = trace_topology(model), engine_of("auto", model)
    whole, parts, other = (zero_sums(topology, torch.float64) for _ in range(3))
    add_batch_(whole, model, topology, engine, TOKENS, batch_id=3)
    for row in range(2):
        add_batch_(parts, model, topology, engine, TOKENS[row : row + 1], batch_id=3, first_row=row)
    assert_equal(named_by_source(parts), named_by_source(whole))
    add_batch_(other, model, topology, engine, TOKENS, batch_id=4)
    assert not torch.allclose(other.ci["0.mlp.up"], whole.ci["0.mlp.up"])


@pytest.mark.parametrize("name", ["auto", "autograd"])
def test_autocast_is_for_the_forwards_alone(name):
    model = toy_model(dtype=torch.float32)
    topology, engine = trace_topology(model), engine_of(name, model)
    sums, expected = (zero_sums(topology, torch.float32) for _ in range(2))
    seen = []
    with torch.autocast("cpu", torch.bfloat16):
        ci = model.causal_importance(TOKENS)
        capture = model.component_forward(TOKENS)

        class Watching:
            needs_graph, reserved_bytes, truncated = engine.needs_graph, 0, engine.truncated

            def gather(self, sums):
                return Whole(self, sums)

            def add_(self, sums, capture, ci):
                seen.append((torch.is_autocast_enabled("cpu"), capture.pre["0.mlp.up"].dtype))
                engine.add_(sums, capture, ci)

        add_batch_with_ci_(sums, model, topology, Watching(), TOKENS, ci)
    assert seen == [(False, torch.bfloat16)]
    engine.add_(expected, capture, ci)
    for metric, name in (("attr", "1.attn.q"), ("attr_abs", "1.mlp.up")):
        found, right = (getattr(some, metric)[name]["0.attn.o"].numbers for some in (sums, expected))
        assert found.any()
        assert found.equal(right)
    assert sums.logit_sq.equal(capture.logits.float().square().sum((0, 1)))


class Waits(TorchDispatchMode):
    """Counts operations that make the host wait where tensors are on a device: their results' sizes, or a number."""

    waiting = frozenset({"_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "bincount", "masked_select"})

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in self.waiting
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_host_hardly_waits_for_the_device(architecture):
    """Beside two copies to the host, of counts and of tokens, which are told apart there."""
    model = toy_model(architecture)
    topology, engine, ci = trace_topology(model), engine_of("auto", model), model.causal_importance(TOKENS)
    sums = zero_sums(topology, torch.float64)
    with Waits() as waits:
        add_batch_with_ci_(sums, model, topology, engine, TOKENS, ci)
    assert waits.count == 1
