import pytest
import torch

from lit_attr.attribution.connectivity import trace_topology
from tests.toys import toy_model

ALL_MLP = {
    "0.mlp.up": ("embed", "0.attn.o"),
    "1.mlp.up": ("embed", "0.mlp.down", "0.attn.o", "1.attn.o"),
    "0.attn.q": ("embed",),
    "1.attn.q": ("embed", "0.mlp.down", "0.attn.o"),
    "0.attn.k": ("embed",),
    "1.attn.k": ("embed", "0.mlp.down", "0.attn.o"),
    "0.attn.v": ("embed",),
    "1.attn.v": ("embed", "0.mlp.down", "0.attn.o"),
    "output": ("embed", "0.mlp.down", "1.mlp.down", "0.attn.o", "1.attn.o"),
    "0.mlp.down": ("0.mlp.up",),
    "1.mlp.down": ("1.mlp.up",),
    "0.attn.o": ("0.attn.q", "0.attn.k", "0.attn.v"),
    "1.attn.o": ("1.attn.q", "1.attn.k", "1.attn.v"),
}


@pytest.mark.parametrize("architecture", ["LlamaSimpleMLP", "GPT2Simple"])
def test_everything_decomposed(architecture):
    topology = trace_topology(toy_model(architecture))
    assert topology.sources == ALL_MLP
    assert list(topology.sources) == list(ALL_MLP)


def test_gated_mlp():
    sources = trace_topology(toy_model("LlamaSimple")).sources
    assert sources["1.glu.down"] == ("1.glu.gate", "1.glu.up")
    assert sources["1.glu.gate"] == sources["1.glu.up"] == ("embed", "0.glu.down", "0.attn.o", "1.attn.o")


def test_undecomposed_attention_is_part_of_the_path():
    model = toy_model(module_info=[{"module_pattern": "h.*.mlp.*_*", "C": 3}])
    assert trace_topology(model).sources == {
        "0.mlp.up": ("embed",),
        "1.mlp.up": ("embed", "0.mlp.down"),
        "output": ("embed", "0.mlp.down", "1.mlp.down"),
        "0.mlp.down": ("0.mlp.up",),
        "1.mlp.down": ("1.mlp.up",),
    }


@pytest.mark.parametrize("run", ["s-kjvmlp02", "s-kjvgpt02"])
def test_equals_the_other_implementation(run, shared):
    from lit_attr.decomposition.load import load_run

    golden = torch.load(shared / "golden" / f"{run}.pt", weights_only=True)
    topology = trace_topology(load_run(shared / "spd_out" / "runs" / f"spd-{run}").model)
    regular = {target: list(by_source) for target, by_source in golden["regular_attr"].items()}
    assert {t: components(topology.sources[t]) for t in topology.component_targets} == regular
    assert topology.component_targets == list(regular)
    assert [t for t in topology.component_targets if "embed" in topology.sources[t]] == list(golden["embed_attr"])
    assert components(topology.sources["output"]) == list(golden["unembed_attr"])
    assert list(topology.n_components) == list(golden["ci_sum"])


def test_context_shorter_than_the_probe():
    model = toy_model(model_options={"block_size": 2})
    assert trace_topology(model).sources == ALL_MLP


def components(sources):
    return [source for source in sources if source != "embed"]
