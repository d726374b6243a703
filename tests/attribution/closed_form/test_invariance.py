import pytest
import torch

from lit_attr.attribution.closed_form import engine, pair_blocks, rows, weights, workspace
from lit_attr.topology.sums import Sums, source_of
from tests.attribution.closed_form.examples import (
    MB,
    assert_close,
    closed_form_engine,
    closed_form_sums,
    random_ci,
    smallest_workspace,
)
from tests.attribution.named import attributions, named_result
from tests.sums import all_alive
from tests.toys import ARCHITECTURES, VOCAB, random_tokens, toy_model

TOKENS = random_tokens(5, 8, vocab=7)


def one_block(architecture):
    return toy_model(architecture, model_options={"n_layer": 1})


@pytest.fixture(params=ARCHITECTURES)
def model(request):
    return toy_model(request.param)


@pytest.fixture(params=[0.0, 0.15, 1.0])
def ci(request, model):
    return random_ci(model, TOKENS, request.param)


@pytest.fixture
def whole(model, ci):
    return closed_form_sums(model, TOKENS, ci)


def test_batch_size_and_order(model, ci, whole):
    parts = None
    for some in ([4], [1, 0], [3, 2]):
        parts = closed_form_sums(model, TOKENS[some], {layer: c[some] for layer, c in ci.items()}, into=parts)
    assert_close(parts, whole, 1e-11)


@pytest.mark.parametrize("n_positions", [1, 3, 4])
def test_blocks_of_positions(model, ci, whole, n_positions, monkeypatch):
    monkeypatch.setattr(pair_blocks, "_SHORTEST_BLOCK", n_positions)
    assert_close(closed_form_sums(model, TOKENS, ci), whole, 1e-11)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("density", "times_smallest", "piece"), [(0.1, 1, 1), (0.5, 1.5, 2000), (1.0, 3, 1 << 20), (0.1, 1000, 1)]
)
def test_workspace(architecture, density, times_smallest, piece, monkeypatch):
    """Sequences one by one or some together, targets and pairs in pieces of all sizes."""
    model, tokens = one_block(architecture), random_tokens(3, 7)
    ci = random_ci(model, tokens, density)
    whole = closed_form_sums(model, tokens, ci)
    monkeypatch.setattr(workspace, "_CPU_PIECE", piece)
    monkeypatch.setattr(pair_blocks, "_SHORTEST_BLOCK", 3)
    nbytes = int(times_smallest * smallest_workspace(model, tokens, ci))
    assert_close(closed_form_sums(model, tokens, ci, workspace_bytes=nbytes), whole, 1e-11)


@pytest.mark.parametrize("alive", ["all", "some"])
def test_smallest_workspace_takes_one_sequence_and_one_target(alive, monkeypatch):
    model, tokens = one_block("LlamaSimpleMLP"), random_tokens(3, 7)
    ci = random_ci(model, tokens, 0.1)
    masks = {layer: torch.arange(n) % 2 == 0 for layer, n in model.n_components.items()} if alive == "some" else None
    taken = []

    def watched(n_items, at_most):
        taken.append((n_items, at_most))
        return evenly(n_items, at_most)

    evenly = workspace.evenly
    for module in (engine, rows):
        monkeypatch.setattr(module, "evenly", watched)
    small = closed_form_sums(model, tokens, ci, masks, smallest_workspace(model, tokens, ci))
    assert taken[0][0] == len(tokens)
    assert {at_most for _, at_most in taken} == {1}
    assert_close(small, closed_form_sums(model, tokens, ci, masks), 1e-11)


@pytest.mark.parametrize(("limit", "dense"), [(-1.0, True), (2.0, False)])
def test_representation_of_weights(model, ci, whole, limit, dense, monkeypatch):
    monkeypatch.setattr(weights, "_DENSE_ABOVE_ON_CPU", limit)
    used, is_dense = [], weights.is_dense
    monkeypatch.setattr(rows, "is_dense", lambda *args: used.append(is_dense(*args)) or used[-1])
    assert_close(closed_form_sums(model, TOKENS, ci), whole, 1e-11)
    assert set(used) == ({dense} if any(values.any() for values in ci.values()) else set())


def test_sums_are_added_to_in_place(model, ci, whole):
    twice = closed_form_sums(model, TOKENS, ci)
    places = [tensor.data_ptr() for _, tensor in twice.named()]
    closed_form_sums(model, TOKENS, ci, into=twice)
    assert [tensor.data_ptr() for _, tensor in twice.named()] == places
    doubled = Sums.zeros(closed_form_engine(model).layout, torch.float64)
    for _ in range(2):
        doubled.add_(whole)
    assert_close(twice, doubled, 1e-12)


def test_sums_are_linear_in_causal_importances(model, whole, ci):
    half = closed_form_sums(model, TOKENS, {layer: c / 2 for layer, c in ci.items()})
    for (name, mine), (_, theirs) in zip(half.named(), whole.named(), strict=True):
        expected = theirs if "embed->" in name or not theirs.is_floating_point() else theirs / 2
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12, msg=name)


def test_captures_are_left_as_they_were(model, ci):
    capture = model.component_forward(TOKENS)
    kept = [capture.embed, capture.residual]
    for tensors in (capture.pre, capture.post, capture.stream, capture.inner, ci):
        kept += tensors.values()
    before = [(tensor._version, tensor.clone()) for tensor in kept]
    of_all = closed_form_engine(model)
    of_all.add_(Sums.zeros(of_all.layout, torch.float64), capture, ci)
    assert all(t._version == version and t.equal(value) for t, (version, value) in zip(kept, before, strict=True))


def test_dead_targets_keep_rows_of_zeros_and_others_their_values(model):
    ci = random_ci(model, TOKENS, 0.5)
    whole = attributions(named_result(closed_form_sums(model, TOKENS, ci), model))
    alive = {layer: torch.arange(n) != 1 for layer, n in model.n_components.items()}
    alive["0.attn.q"][:] = False
    gated = attributions(named_result(closed_form_sums(model, TOKENS, ci, alive), model, alive))
    assert gated.keys() == whole.keys()
    for name, theirs in whole.items():
        target = name.partition("->")[2]
        mask = alive.get(target, torch.ones(len(theirs), dtype=torch.bool))
        mine = gated[name]
        assert not mine[~mask].any(), name
        torch.testing.assert_close(mine[mask], theirs[mask], rtol=1e-11, atol=1e-13, msg=name)
        assert target == "0.attn.q" or mine.any(), name


def test_what_does_not_occur_has_no_row(model):
    """Components without causal importance, and tokens that are not there; all others have one, which is not zero."""
    ci = random_ci(model, TOKENS, 1.0)
    for values in ci.values():
        values[..., 2] = 0
    sums = closed_form_sums(model, TOKENS, ci)
    for layer, live in sums.live.items():
        expected = TOKENS.unique().tolist() if layer == "embed" else [i for i in range(live.n_all) if i != 2]
        assert live.ids.tolist() == expected
    assert len(sums.live["embed"]) < VOCAB
    assert all(table.numbers.any(1).all() for name, table in sums.tables() if source_of(name) == "embed")
    assert all(table.numbers.any() for _, table in sums.tables())


def test_only_the_given_edges_are_computed(model):
    of_all = closed_form_engine(model)
    edge = next(edge for edge in of_all.edges["1.attn.q"] if edge.source == "0.attn.o")
    of_all.edges = {"1.attn.q": [edge]}
    sums = Sums.zeros(of_all.layout, torch.float64)
    of_all.add_(sums, model.component_forward(TOKENS, graph=False), random_ci(model, TOKENS, 0.5))
    filled = {name for name, tensor in sums.named() if tensor.any()}
    behind_one_norm = {f"attr_abs/0.attn.o->1.attn.{target}" for target in "qkv"}
    assert filled == {"attr/0.attn.o->1.attn.q", *behind_one_norm}


def test_all_dead_is_nothing_but_the_output(model):
    alive = {
        layer: torch.zeros_like(mask) for layer, mask in all_alive(closed_form_engine(model).layout.topology).items()
    }
    sums = closed_form_sums(model, TOKENS, random_ci(model, TOKENS, 0.5), alive, 64 * MB)
    assert {name.partition("->")[2] for name, tensor in sums.named() if tensor.any()} == {"output"}
