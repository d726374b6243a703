"""Matrices that are kept in bfloat16: half the memory, and the same numbers to the last bit."""

import copy
import gc

import pytest
import torch
from torch import nn

from lit_attr.attribution.batch import add_batch_
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import build_engine, choose_engines
from lit_attr.decomposition.load import load_run
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.untrained import Neurons
from lit_attr.decomposition.untrained.run import load_untrained
from lit_attr.decomposition.widening import keep_bfloat16_
from lit_attr.harvest.memory import PeakMemory
from lit_attr.topology.sums import Sums
from tests.huggingface_toys import huggingface_model
from tests.sums import layout_of
from tests.toys import random_tokens, toy_model, write_run

MLP = [{"module_pattern": "h.*.mlp.down_proj", "C": 5}]


def rounded(model: nn.Module) -> nn.Module:
    """The model with numbers of bfloat16, in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model


def pair(model: DecomposedModel) -> tuple[DecomposedModel, DecomposedModel]:
    """A model in float32, and the same model kept in bfloat16."""
    narrow = copy.deepcopy(rounded(model))
    keep_bfloat16_(narrow)
    assert narrow.components(next(iter(narrow.paths))).V.dtype == torch.bfloat16
    return model, narrow


def harvested(model: DecomposedModel, engine: str, tokens: torch.Tensor, *, autocast: bool) -> dict[str, torch.Tensor]:
    topology = trace_topology(model)
    layout = layout_of(topology)
    sums = Sums.zeros(layout, model.dtype)
    choice = choose_engines(engine, model, topology)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        add_batch_(sums, model, topology, build_engine(choice, model, layout, 4, 1 << 24), tokens)
    return {**dict(sums.named()), "w_unembed": model.unembedding}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    ("architecture", "changes", "engine"),
    [
        ("LlamaSimpleMLP", {}, "autograd"),
        ("LlamaSimple", {}, "auto"),
        ("GPT2Simple", {"module_info": MLP}, "auto"),
        ("GPT2Simple", {"ci_config": {"mode": "layerwise", "fn_type": "vector_mlp", "hidden_dims": [3]}}, "auto"),
    ],
)
def test_sums_are_the_same_to_the_last_bit(architecture, changes, engine, autocast):
    wide, narrow = pair(toy_model(architecture, torch.float32, **changes))
    tokens = random_tokens(2)
    found, expected = (harvested(model, engine, tokens, autocast=autocast) for model in (narrow, wide))
    assert {name: sums.dtype for name, sums in found.items()} == {name: sums.dtype for name, sums in expected.items()}
    assert not [name for name in expected if not found[name].equal(expected[name])]
    assert expected["logit_sq"].any()


@pytest.mark.parametrize("variant", ["llama", "gpt2", "gpt-neox"])
def test_models_of_the_library_compute_the_same(variant):
    wide, narrow = pair(huggingface_model(variant, dtype=torch.float32))
    tokens = random_tokens(2, 9)
    assert narrow.target_model(tokens).equal(wide.target_model(tokens))
    assert narrow.component_forward(tokens).logits.equal(wide.component_forward(tokens).logits)
    embed = narrow.target_model.get_submodule(narrow.table.embed)
    assert embed.weight.dtype == torch.bfloat16
    assert embed(tokens).dtype == torch.float32


def test_the_whole_model_may_be_widened():
    wide, narrow = pair(toy_model(dtype=torch.float32))
    tokens = random_tokens(2)
    assert narrow.double().component_forward(tokens).logits.equal(wide.double().component_forward(tokens).logits)
    assert narrow.dtype == torch.float64


def test_only_matrices_of_such_numbers_alone_are_kept():
    model = toy_model(dtype=torch.float32)
    before = copy.deepcopy(model.state_dict())
    keep_bfloat16_(model)
    rounded(model).components("0.mlp.up").V[-1, -1] = 1 + 2**-20
    keep_bfloat16_(model)
    kept = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.bfloat16}
    matrices = {name for name, tensor in before.items() if tensor.ndim > 1}
    assert kept == {name for name in matrices if "mlp-c_fc.V" not in name or "-1-" in name}


def test_ties_stay_and_modules_of_other_classes_keep_what_they_share():
    class Odd(nn.Linear):
        """A linear layer that may do anything with its weight."""

    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Embedding(3, 3), "c": nn.Linear(3, 3), "d": Odd(3, 3)})
    rounded(model)
    model["a"].weight, model["c"].weight = model["b"].weight, model["d"].weight
    keep_bfloat16_(model)
    assert model["a"].weight is model["b"].weight
    assert {name: module.weight.dtype for name, module in model.items()} == {
        **dict.fromkeys("ab", torch.bfloat16),
        **dict.fromkeys("cd", torch.float32),
    }


def test_a_graph_holds_the_matrices_as_they_are():
    _, narrow = pair(toy_model("LlamaSimple", torch.float32, model_options={"n_embd": 64, "n_intermediate": 1024}))
    matrices = sum(p.nbytes for name, p in narrow.named_parameters() if name.endswith((".V", ".U")))
    gc.collect()
    with PeakMemory() as memory:
        capture = narrow.component_forward(random_tokens(1, 2))
    assert capture.residual.requires_grad
    assert memory.live < 2 * matrices  # widened they would take twice as much


def test_runs_that_were_stored_in_bfloat16_are_kept_in_it(tmp_path):
    run = write_run(tmp_path / "run")
    state = torch.load(run / "model_10.pth")
    torch.save({name: tensor.bfloat16() for name, tensor in state.items()}, run / "model_10.pth")
    model = load_run(run).model
    assert {p.dtype for p in model.parameters() if p.ndim > 1} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.ndim == 1} == {torch.float32}


def test_models_of_the_library_are_kept_in_bfloat16(tmp_path):
    original = rounded(huggingface_model("llama", dtype=torch.float32).target_model)
    original.save_pretrained(tmp_path)
    run = load_untrained(tmp_path, Neurons())
    assert run.model.target_model.lm_head.weight.dtype == torch.bfloat16
    assert {run.model.components(layer).U.dtype for layer in run.model.paths} == {torch.bfloat16}
