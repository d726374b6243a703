"""Counted operations, against those that torch sees."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lit_attr.attribution.closed_form.engine import ClosedFormEngine
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import choose_engines
from lit_attr.decomposition.untrained import Svd
from lit_attr.decomposition.untrained.decompose import decompose
from lit_attr.harvest.needs import Live
from lit_attr.harvest.shape import Shape
from lit_attr.planning.flops import Density, forward_flops, work_per_token
from lit_attr.topology.paths import path_table
from tests.huggingface_toys import huggingface_target
from tests.sums import full_sums, layout_of
from tests.toys import BLOCK, random_tokens, toy_model


def flops_of(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["LlamaSimpleMLP", "LlamaSimple", "gpt2"])
def test_forwards(name):
    if name == "gpt2":
        target = huggingface_target(name, torch.float32)
        model = decompose(target, path_table("GPT2LMHeadModel"), Svd())
    else:
        model = toy_model(name, torch.float32)
    tokens = random_tokens(3)

    def forwards():
        model.causal_importance(tokens)
        model.component_forward(tokens, graph=False)

    assert forward_flops(model, BLOCK) * tokens.numel() == pytest.approx(flops_of(forwards), rel=0.02)


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("mlp", 1, 1), ("query", 0.5, 2), ("key", 0.5, 2), ("value", 0.5, 2)]
)
def test_products_of_the_engine(kind, least, most):
    """Everything is at work everywhere; blocks of positions leave out less than half of a pattern, or fill gaps."""
    model = toy_model("LlamaSimple", torch.float32, model_options={"block_size": 64, "n_ctx": 64, "n_embd": 32})
    topology = trace_topology(model)
    choice = choose_engines("closed_form", model, topology)
    tokens = random_tokens(2, 64)
    ci = {layer: torch.ones(2, 64, count) for layer, count in topology.n_components.items()}
    work = work_per_token(Shape(model, topology), choice, Live.all(topology), Density(1.0, 64, 2))
    capture = model.component_forward(tokens, graph=False)
    edges = [edge for edge in choice.closed_form if edge.kind == kind]
    engine = ClosedFormEngine(model, layout_of(topology), edges, 1 << 27)
    found = flops_of(lambda: engine.add_(full_sums(topology, torch.float32), capture, ci)) / tokens.numel()
    assert least <= found / (work.flops[kind] + work.abs_flops[kind]) <= most
