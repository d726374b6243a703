"""Every causal-importance function in float64 against its formula."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_attr.decomposition.ci import whole_model
from lit_attr.decomposition.ci.layers import Linear
from tests.decomposition import plain
from tests.decomposition.test_context import REVERSE_RESIDUAL, TRANSFORMER
from tests.toys import MODEL_OPTIONS, random_tokens, toy_model

Inputs = Mapping[str, Tensor]
SHARED_MLP = {"mode": "global", "fn_type": "global_shared_mlp", "hidden_dims": [6]}
EPS = 2.220446049250313e-16
MODULES = [("h.*.mlp.c_fc", 3), ("h.*.attn.k_proj", 4), ("h.*.mlp.down_proj", 5)]


def check(ci_config: dict[str, Any], formula: Callable[..., dict[str, Tensor]], **model_options: Any) -> None:
    options = MODEL_OPTIONS["LlamaSimpleMLP"] | model_options
    modules = [{"module_pattern": pattern, "C": count} for pattern, count in MODULES]
    model = toy_model(ci_config=ci_config, sigmoid_type="normal", module_info=modules, model_options=options)
    tokens = random_tokens(3)
    state = model.state_dict()
    _, inputs = plain.target_forward(state, options, tokens)
    inputs = {path: inputs[path] for path in model.paths.values()}
    own = {n.partition(".")[2].removeprefix("_global_ci_fn."): t for n, t in state.items() if n.startswith("ci_fn.")}
    counts = {path: model.n_components[layer] for layer, path in model.paths.items()}
    expected = formula(state | own, inputs, counts)
    pre_sigmoid, ci = dict(model.ci_fn(inputs)), model.causal_importance(tokens)
    for layer, path in model.paths.items():
        torch.testing.assert_close(pre_sigmoid[path], expected[path], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(ci[layer], torch.sigmoid(expected[path]), rtol=0, atol=1e-11)


def dashed(path: str) -> str:
    return path.replace(".", "-")


def split(values: Tensor, paths: list[str], counts: Mapping[str, int]) -> dict[str, Tensor]:
    return dict(zip(paths, values.split([counts[path] for path in paths], -1), strict=True))


@pytest.mark.parametrize("hidden", [[6], [6, 5]])
def test_mlp_sees_one_component_each(hidden: list[int]):
    def formula(state: Inputs, inputs: Inputs, counts: Mapping[str, int]) -> dict[str, Tensor]:
        values = {}
        for path, x in inputs.items():
            a = x @ state[f"_components.{dashed(path)}.V"]
            prefix = f"_ci_fns.{dashed(path)}.layers."
            columns = [plain.stack(state, prefix, a[..., c, None], (c,)) for c in range(counts[path])]
            values[path] = torch.cat(columns, -1)
        return values

    check({"mode": "layerwise", "fn_type": "mlp", "hidden_dims": hidden}, formula)


@pytest.mark.parametrize("hidden", [[6], [6, 5]])
def test_vector_mlp_sees_the_input_of_the_matrix_for_each_component(hidden: list[int]):
    def formula(state: Inputs, inputs: Inputs, counts: Mapping[str, int]) -> dict[str, Tensor]:
        values = {}
        for path, x in inputs.items():
            prefix = f"_ci_fns.{dashed(path)}.layers."
            values[path] = torch.cat([plain.stack(state, prefix, x, (c,)) for c in range(counts[path])], -1)
        return values

    check({"mode": "layerwise", "fn_type": "vector_mlp", "hidden_dims": hidden}, formula)


@pytest.mark.parametrize("hidden", [[], [6], [6, 5]])
def test_shared_mlp_sees_the_input_of_the_matrix_for_all_components(hidden: list[int]):
    def formula(state: Inputs, inputs: Inputs, counts: Mapping[str, int]) -> dict[str, Tensor]:
        return {path: plain.stack(state, f"_ci_fns.{dashed(path)}.layers.", x) for path, x in inputs.items()}

    check({"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": hidden}, formula)


@pytest.mark.parametrize("n_layer", [2, 11])
@pytest.mark.parametrize("hidden", [[], [6], [6, 5]])
def test_global_shared_mlp_sees_all_inputs_in_sorted_order(hidden: list[int], n_layer: int):
    def formula(state: Inputs, inputs: Inputs, counts: Mapping[str, int]) -> dict[str, Tensor]:
        paths = sorted(inputs)
        return split(plain.stack(state, "layers.", torch.cat([inputs[p] for p in paths], -1)), paths, counts)

    check({"mode": "global", "fn_type": "global_shared_mlp", "hidden_dims": hidden}, formula, n_layer=n_layer)


@pytest.mark.parametrize("hidden", [[6], [6, 5]])
def test_global_shared_transformer_sees_all_normalised_inputs_and_positions(hidden: list[int]):
    def formula(state: Inputs, inputs: Inputs, counts: Mapping[str, int]) -> dict[str, Tensor]:
        paths = sorted(inputs)
        x = torch.cat([plain.rms_norm(inputs[p], EPS) for p in paths], -1)
        x = x @ state["_input_projector.W"] + state["_input_projector.b"]
        for block in ("_blocks.0.", "_blocks.1."):
            x = x + plain.ci_attention(state, f"{block}attn.", plain.rms_norm(x, EPS), 2)
            x = x + plain.stack(state, f"{block}mlp.", plain.rms_norm(x, EPS))
        return split(x @ state["_output_head.W"] + state["_output_head.b"], paths, counts)

    shape = {"d_model": 8, "n_blocks": 2, "mlp_hidden_dim": hidden, "attn_config": {"n_heads": 2}}
    check({"mode": "global", "fn_type": "global_shared_transformer", "simple_transformer_ci_cfg": shape}, formula)


GROUPS = {"top.mlp": ["*.1.mlp.down_proj", "h.1.mlp.*_fc"], "attn": ["h.*.attn.*"], "low": ["h.0.mlp.*"]}


@pytest.mark.parametrize("transition", [None, 5])
@pytest.mark.parametrize("base", [None, 50.0])
@pytest.mark.parametrize("reader", [[], [6, 7]])
def test_global_reverse_residual_visits_the_groups_in_order(
    transition: int | None, base: float | None, reader: list[int]
):
    members = {
        "top-mlp": ["h.1.mlp.down_proj", "h.1.mlp.c_fc"],
        "attn": ["h.0.attn.k_proj", "h.1.attn.k_proj"],
        "low": ["h.0.mlp.c_fc", "h.0.mlp.down_proj"],
    }

    def formula(state: Inputs, inputs: Inputs, counts: Mapping[str, int]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        r = torch.zeros(())
        for name, paths in members.items():
            x = torch.cat([inputs[p] for p in paths], -1)
            r = r + x @ state[f"_inp_projectors.{name}.W"] + state[f"_inp_projectors.{name}.b"]
            if name != "low":
                if base is not None:
                    h = plain.rms_norm(r, EPS, state[f"_attn_norms.{name}.weight"])
                    r = r + plain.ci_attention(state, f"_attn_transitions.{name}.", h, 2, base)
                h = plain.rms_norm(r, EPS, state[f"_transition_norms.{name}.weight"])
                prefix = f"_transitions.{name}."
                r = r + (
                    h @ state[prefix + "W"] + state[prefix + "b"]
                    if transition is None
                    else plain.stack(state, prefix, h)
                )
            h = plain.rms_norm(r, EPS, state[f"_reader_norms.{name}.weight"])
            values |= split(plain.stack(state, f"_readers.{name}.", h), paths, counts)
        return values

    options = {
        "mode": "global",
        "fn_type": "global_reverse_residual",
        "reader_hidden_dims": reader,
        "d_resid_ci_fn": 8,
        "block_groups": [{"name": name, "patterns": patterns} for name, patterns in GROUPS.items()],
        "transition_hidden_dim": transition,
        "transition_attn_config": None if base is None else {"n_heads": 2, "rope_base": base},
    }
    check(options, formula)


@pytest.mark.parametrize("options", [TRANSFORMER, REVERSE_RESIDUAL, SHARED_MLP])
def test_whole_models_are_computed_in_pieces(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """A few positions of the inputs at once, and outputs of few matrices."""
    model, tokens, some = toy_model(ci_config=options, sigmoid_type="normal"), random_tokens(2, 5), Linear.some
    sizes: list[int] = []

    def watched(layer: Linear, x: Tensor, columns: slice) -> Tensor:
        out = some(layer, x, columns)
        sizes.append(max(x.numel(), out.numel()))
        return out

    monkeypatch.setattr(Linear, "some", watched)
    whole, largest = model.causal_importance(tokens), max(sizes)
    sizes.clear()
    monkeypatch.setattr(whole_model, "_INPUTS_AT_ONCE", 256)
    monkeypatch.setattr(whole_model, "_OUTPUTS_AT_ONCE", 256)
    torch.testing.assert_close(model.causal_importance(tokens), whole, rtol=1e-12, atol=1e-12)
    assert max(sizes) <= 256 < largest
