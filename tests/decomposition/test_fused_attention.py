import pytest
import torch

from lit_attr.decomposition.model import DecomposedModel
from tests.toys import MATRICES, random_tokens, toy_model

LLAMAS = ["LlamaSimpleMLP", "LlamaSimple"]


@pytest.fixture(params=[(a, bias) for a in LLAMAS for bias in (False, True)], ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[DecomposedModel, DecomposedModel]:
    """A model with one matrix for queries, keys and values, and one with the same in three."""
    architecture, bias = request.param
    modules = [{"module_pattern": f"h.*.{matrix}", "C": 3 + i} for i, matrix in enumerate(MATRICES[architecture])]
    fused, unfused = (
        toy_model(architecture, module_info=modules, model_options={"attn_bias": bias, **options})
        for options in ({"use_grouped_query_attention": False}, {"n_key_value_heads": 4})
    )
    state = unfused.state_dict()
    for block in (0, 1):
        prefix = f"target_model.h.{block}.attn."
        for part in ("weight", "bias") if bias else ("weight",):
            state[f"{prefix}c_attn.{part}"] = torch.cat([state.pop(f"{prefix}{n}_proj.{part}") for n in "qkv"])
    fused.load_state_dict(state)
    return fused, unfused


def test_fused_model_has_one_matrix(pair: tuple[DecomposedModel, DecomposedModel]):
    fused, unfused = (set(dict(model.target_model.h[0].attn.named_children())) for model in pair)
    assert (fused, unfused) == ({"c_attn", "o_proj"}, {"q_proj", "k_proj", "v_proj", "o_proj"})


def test_fused_model_has_the_same_logits(pair: tuple[DecomposedModel, DecomposedModel]):
    fused, unfused = (model.target_model(random_tokens(3)) for model in pair)
    torch.testing.assert_close(fused, unfused, rtol=0, atol=1e-12)


def test_fused_model_has_the_same_causal_importances(pair: tuple[DecomposedModel, DecomposedModel]):
    fused, unfused = (model.causal_importance(random_tokens(3)) for model in pair)
    torch.testing.assert_close(fused, unfused, rtol=0, atol=1e-12)


def test_fused_model_has_the_same_component_forward(pair: tuple[DecomposedModel, DecomposedModel]):
    fused, unfused = (model.component_forward(random_tokens(3)) for model in pair)
    for name in ("logits", "residual", "embed", "pre", "post"):
        torch.testing.assert_close(getattr(fused, name), getattr(unfused, name), rtol=0, atol=1e-12)
