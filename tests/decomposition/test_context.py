import re
from typing import Any

import pytest

from lit_attr.errors import DataError
from tests.toys import ARCHITECTURES, BLOCK, random_tokens, toy_model

ATTENTION = {"n_heads": 2, "max_len": 5}
TRANSFORMER = {
    "mode": "global",
    "fn_type": "global_shared_transformer",
    "simple_transformer_ci_cfg": {"d_model": 8, "n_blocks": 1, "mlp_hidden_dim": [5], "attn_config": ATTENTION},
}
REVERSE_RESIDUAL = {
    "mode": "global",
    "fn_type": "global_reverse_residual",
    "reader_hidden_dims": [5],
    "d_resid_ci_fn": 8,
    "block_groups": [{"name": "top", "patterns": ["h.1.*"]}, {"name": "low", "patterns": ["h.0.*"]}],
    "transition_attn_config": ATTENTION,
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("forward", ["causal_importance", "component_forward", "target_model"])
def test_sequences_longer_than_the_context_are_refused(architecture: str, forward: str):
    model = toy_model(architecture)
    getattr(model, forward)(random_tokens(1, BLOCK))
    message = f"^sequences of {BLOCK + 1} tokens are longer than the model's context of {BLOCK}$"
    with pytest.raises(DataError, match=message):
        getattr(model, forward)(random_tokens(1, BLOCK + 1))


@pytest.mark.parametrize("options", [TRANSFORMER, REVERSE_RESIDUAL])
def test_sequences_longer_than_the_ci_attention_allows_are_refused(options: dict[str, Any]):
    model = toy_model(ci_config=options)
    model.causal_importance(random_tokens(1, 5))
    message = (
        "sequences of 6 tokens are longer than the 5 that the run's causal-importance transformer allows (max_len)"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        model.causal_importance(random_tokens(1, 6))


def test_ci_attention_does_not_limit_the_component_forward():
    assert toy_model(ci_config=TRANSFORMER).component_forward(random_tokens(1, BLOCK)).logits.shape[1] == BLOCK
