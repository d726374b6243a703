import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.attribution.closed_form.edge_blocks import closed_edges
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.decomposition.anatomy import Attention, Mlp, Norm
from tests.toys import ARCHITECTURES, ATTENTION, MATRICES, random_tokens, toy_model

KINDS = {"attn.q": "query", "attn.k": "key", "attn.v": "value", "up": "mlp", "gate": "mlp"}


def traced(topology):
    return {(source, target) for target, sources in topology.sources.items() for source in sources}


def closed(model):
    return {(edge.source, edge.target) for edge in closed_edges(trace_topology(model), model.anatomy())}


def decomposed(architecture, *patterns):
    return toy_model(architecture, module_info=[{"module_pattern": pattern, "C": 2} for pattern in patterns])


def without(architecture, block, matrix):
    return decomposed(
        architecture,
        *(f"h.{b}.{m}" for b in (0, 1) for m in MATRICES[architecture] + ATTENTION if (b, m) != (block, matrix)),
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_block_is_closed_once_where_every_matrix_is_decomposed(architecture):
    model = toy_model(architecture)
    topology = trace_topology(model)
    edges = closed_edges(topology, model.anatomy())
    assert len(edges) == len({(edge.source, edge.target) for edge in edges})
    assert closed(model) == traced(topology)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kind_and_what_is_passed_through(architecture):
    model = toy_model(architecture)
    anatomy = model.anatomy()
    for edge in closed_edges(trace_topology(model), anatomy):
        if isinstance(edge.through, Norm):
            assert edge.kind == "stream"
            reads = {layer: s.norm for s in anatomy.sublayers for layer in s.readers}
            assert edge.through is {**reads, "output": anatomy.final_norm}[edge.target]
        else:
            assert isinstance(edge.through, Mlp if edge.kind == "mlp" else Attention)
            assert KINDS[edge.source.removeprefix("0.").removeprefix("1.").replace("mlp.", "").replace("glu.", "")] == (
                edge.kind
            )
            assert edge.target == edge.through.out


@pytest.mark.parametrize("architecture", ["LlamaSimpleMLP", "GPT2Simple"])
def test_only_mlps(architecture):
    assert closed(decomposed(architecture, "h.*.mlp.*_*")) == {
        ("0.mlp.up", "0.mlp.down"),
        ("1.mlp.up", "1.mlp.down"),
        ("1.mlp.down", "output"),
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_attention(architecture):
    inside = {(f"{block}.attn.{m}", f"{block}.attn.o") for block in (0, 1) for m in "qkv"}
    first = {("embed", f"0.attn.{m}") for m in "qkv"}
    assert closed(decomposed(architecture, "h.*.attn.*_proj")) == inside | first


@pytest.mark.parametrize("matrix", ["attn.q_proj", "attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"])
def test_one_matrix(matrix):
    expected = {"attn.q_proj": {("embed", "0.attn.q")}}
    assert closed(decomposed("LlamaSimple", f"h.0.{matrix}")) == expected.get(matrix, set())
    last = {"mlp.down_proj": {("1.glu.down", "output")}}
    assert closed(decomposed("LlamaSimple", f"h.1.{matrix}")) == last.get(matrix, set())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("missing", "qkv")
def test_a_projection_is_missing_its_own_path_to_the_output_is_open(architecture, missing):
    model = without(architecture, 0, f"attn.{missing}_proj")
    assert traced(trace_topology(model)) - closed(model) == {("embed", "0.attn.o")}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_output_of_attention_is_missing_the_projections_feed_everything_behind_it(architecture):
    model = without(architecture, 0, "attn.o_proj")
    still_open = traced(trace_topology(model)) - closed(model)
    assert {source for source, _ in still_open} == {"0.attn.q", "0.attn.k", "0.attn.v"}
    assert {"1.attn.q", "output"} <= {target for _, target in still_open}
    assert ("embed", "0.attn.q") in closed(model)
    assert ("embed", "output") in closed(model)


def test_half_of_a_gate_is_missing():
    model = without("LlamaSimple", 1, "mlp.gate_proj")
    still_open = traced(trace_topology(model)) - closed(model)
    assert {target for _, target in still_open} == {"1.glu.down"}
    assert ("1.glu.up", "1.glu.down") in closed(model)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), architecture=st.sampled_from(ARCHITECTURES))
def test_closed_are_the_blocks_that_no_undecomposed_matrix_has_a_part_in(data, architecture):
    """Such a matrix's output, cut off, changes the gradient."""
    matrices = [f"h.{block}.{m}" for block in (0, 1) for m in MATRICES[architecture] + ATTENTION]
    chosen = data.draw(st.lists(st.sampled_from(matrices), unique=True, min_size=1))
    model = decomposed(architecture, *chosen)
    topology = trace_topology(model)
    whole = gradients(model, topology)
    for path in set(matrices) - set(chosen):
        model.target_model.get_submodule(path).register_forward_hook(lambda module, args, out: out.detach())
    cut = gradients(model, topology)
    same = {edge for edge, gradient in whole.items() if torch.equal(gradient, cut[edge])}
    assert closed(model) == same


def gradients(model, topology):
    capture = model.component_forward(random_tokens(1, 4))
    found = {}
    for target, sources in topology.sources.items():
        value = capture.residual if target == "output" else capture.pre[target]
        leaves = [capture.embed if source == "embed" else capture.post[source] for source in sources]
        of_target = [torch.zeros(())] * len(leaves)
        if value.requires_grad:
            of_target = torch.autograd.grad(value.square().sum(), leaves, retain_graph=True, materialize_grads=True)
        found |= {(source, target): gradient for source, gradient in zip(sources, of_target, strict=True)}
    return found
