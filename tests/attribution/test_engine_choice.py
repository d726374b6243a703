import pytest
import torch

from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import build_engine, choose_engines
from lit_attr.errors import ConfigurationError
from tests.attribution.closed_form.examples import MB, assert_close, random_ci
from tests.attribution.named import named_result, without_abs
from tests.sums import layout_of, zero_sums
from tests.toys import ARCHITECTURES, random_tokens, toy_model

TOKENS = random_tokens(3, 6)
PARTIAL = {
    "only MLPs": ("LlamaSimpleMLP", ["h.*.mlp.*_*"]),
    "only attention": ("GPT2Simple", ["h.*.attn.*_proj"]),
    "no output of attention": ("LlamaSimple", ["h.*.mlp.*_proj", "h.*.attn.q_proj", "h.*.attn.k_proj"]),
    "no values": ("LlamaSimpleMLP", ["h.*.mlp.*_*", "h.*.attn.q_proj", "h.*.attn.k_proj", "h.*.attn.o_proj"]),
    "half of a gate": ("LlamaSimple", ["h.*.attn.*_proj", "h.*.mlp.up_proj", "h.*.mlp.down_proj"]),
    "one block": ("GPT2Simple", ["h.1.*.*_proj", "h.1.mlp.c_fc"]),
}


def partial_model(name):
    architecture, patterns = PARTIAL[name]
    return toy_model(architecture, module_info=[{"module_pattern": p, "C": 3 + i} for i, p in enumerate(patterns)])


def engine_of(name, model, alive=None):
    topology = trace_topology(model)
    return build_engine(choose_engines(name, model, topology), model, layout_of(topology, alive=alive), 4, 8 * MB)


def harvest(engine, model, ci, alive=None, metrics="both"):
    sums = zero_sums(trace_topology(model), torch.float64, metrics=metrics, alive=alive)
    engine.add_(sums, model.component_forward(TOKENS, graph=engine.needs_graph), ci)
    return named_result(sums, model, alive)


@pytest.mark.parametrize("name", PARTIAL)
@pytest.mark.parametrize("gated", [False, True])
def test_auto_equals_autograd_on_partial_decompositions(name, gated):
    model = partial_model(name)
    ci = random_ci(model, TOKENS, 0.5)
    alive = {layer: torch.arange(n) != 1 for layer, n in model.n_components.items()} if gated else None
    auto = engine_of("auto", model, alive)
    assert list(auto.engines) == ["closed_form", "forward_mode"]
    expected = harvest(engine_of("autograd", model, alive), model, ci, alive)
    assert_close(harvest(auto, model, ci, alive), expected, 1e-10)
    assert_close(harvest(auto, model, ci, alive, "attr"), without_abs(expected), 1e-10)


@pytest.mark.parametrize("patterns", [["h.*.mlp.*_*"], ["h.*.mlp.*_*", "h.*.attn.o_proj"]])
def test_auto_equals_autograd_with_queries_keys_and_values_in_one_matrix(patterns):
    modules = [{"module_pattern": pattern, "C": 4} for pattern in patterns]
    model = toy_model(module_info=modules, model_options={"use_grouped_query_attention": False})
    ci = random_ci(model, TOKENS, 0.5)
    auto = engine_of("auto", model)
    assert "closed_form" in auto.engines
    assert_close(harvest(auto, model, ci), harvest(engine_of("autograd", model), model, ci), 1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["auto", "closed_form"])
def test_closed_form_alone_where_every_matrix_is_decomposed(architecture, name):
    model = toy_model(architecture)
    ci = random_ci(model, TOKENS, 0.5)
    engine = engine_of(name, model)
    assert list(engine.engines) == ["closed_form"]
    assert not engine.needs_graph
    assert_close(harvest(engine, model, ci), harvest(engine_of("autograd", model), model, ci), 1e-10)


def test_autograd_alone():
    engine = engine_of("autograd", toy_model())
    assert list(engine.engines) == ["autograd"]
    assert engine.needs_graph


def test_forward_mode_alone_where_nothing_is_closed():
    model = toy_model(module_info=[{"module_pattern": "h.1.mlp.c_fc", "C": 3}])
    engine = engine_of("auto", model)
    assert list(engine.engines) == ["forward_mode"]


def test_forward_mode_needs_no_graph_of_the_capture():
    assert not engine_of("auto", partial_model("only MLPs")).needs_graph


@pytest.mark.parametrize("name", PARTIAL)
def test_every_block_has_one_engine(name):
    model = partial_model(name)
    topology = trace_topology(model)
    blocks = choose_engines("auto", model, topology).blocks
    expected = sorted(f"{source}->{target}" for target, sources in topology.sources.items() for source in sources)
    assert sorted(blocks["closed_form"] + blocks["forward_mode"]) == expected


def test_closed_form_is_refused_where_it_is_not_exact():
    model = partial_model("only MLPs")
    message = (
        "model.engine closed_form: 5 edge blocks have no closed form, an undecomposed sublayer lies on their paths: "
        "embed->0.mlp.up, embed->1.mlp.up, 0.mlp.down->1.mlp.up, embed->output, 0.mlp.down->output; use auto"
    )
    with pytest.raises(ConfigurationError) as error:
        choose_engines("closed_form", model, trace_topology(model))
    assert str(error.value) == message


def test_refusal_names_a_few_of_many_blocks():
    model = partial_model("no output of attention")
    with pytest.raises(ConfigurationError, match=r"(\S+, ){5}\.\.\.; use auto$"):
        choose_engines("closed_form", model, trace_topology(model))


def described(name, model):
    return choose_engines(name, model, trace_topology(model)).describe()


def test_description():
    assert described("auto", toy_model()) == "closed_form for 31 of 31 edge blocks"
    assert described("autograd", toy_model()) == "autograd for 31 of 31 edge blocks"
    assert described("auto", partial_model("only MLPs")) == (
        "closed_form for 3 of 8 edge blocks (0.mlp.up->0.mlp.down, 1.mlp.up->1.mlp.down, 1.mlp.down->output); "
        "forward_mode for 5 of 8 edge blocks "
        "(embed->0.mlp.up, embed->1.mlp.up, 0.mlp.down->1.mlp.up, embed->output, 0.mlp.down->output)"
    )
    assert described("auto", partial_model("no values")).count(", ...") == 1
