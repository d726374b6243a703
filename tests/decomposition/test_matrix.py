import pytest
import torch
import yaml
from torch import nn
from transformers.pytorch_utils import Conv1D

from lit_attr.decomposition.load import load_run
from lit_attr.decomposition.matrix import bias_of, is_matrix, weight_of
from lit_attr.decomposition.patterns import expand_patterns
from lit_attr.errors import RunFormatError
from tests.huggingface_toys import huggingface_config, huggingface_model
from tests.toys import random_tokens

MODULES = [nn.Linear(5, 3), nn.Linear(5, 3, bias=False), Conv1D(3, 5)]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_output_is_that_of_the_module(module):
    assert is_matrix(module)
    x, weight, bias = torch.randn(2, 4, 5), weight_of(module), bias_of(module)
    assert (bias is None) == (module.bias is None)
    torch.testing.assert_close(x @ weight + (0 if bias is None else bias), module(x).detach())
    assert weight.data_ptr() == module.weight.data_ptr()


def test_others_are_no_matrices():
    class Conv1D(nn.Conv1d):
        """A namesake."""

    others = [Conv1D(3, 3, 1), nn.Conv1d(3, 3, 1), nn.Embedding(3, 3), nn.LayerNorm(3)]
    assert not any(is_matrix(module) for module in others)


def test_a_trained_run_of_gpt2_of_transformers(tmp_path):
    """Its matrices are `Conv1D`s, its shape is in a config.json beside the run."""
    model = huggingface_model("gpt2", torch.float32)
    counts = {path: model.components(layer).n_components for layer, path in model.paths.items()}
    assert expand_patterns(tuple(counts.items()), model.target_model) == counts
    options = {
        "pretrained_model_class": "transformers.GPT2LMHeadModel",
        "module_info": [{"module_pattern": path, "C": count} for path, count in counts.items()],
        "ci_config": {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": []},
    }
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("ci_fn.")}
    for path, weight in zip(counts, model.ci_fn.weights, strict=True):
        name = f"ci_fn._ci_fns.{path.replace('.', '-')}.layers.0"
        state |= {f"{name}.W": weight, f"{name}.b": torch.zeros(weight.shape[1])}
    (tmp_path / "final_config.yaml").write_text(yaml.safe_dump(options))
    (tmp_path / "config.json").write_text(huggingface_config("gpt2").to_json_string())
    torch.save(state, tmp_path / "model_1.pth")
    loaded = load_run(tmp_path).model
    tokens = random_tokens(2)
    found, expected = loaded.component_forward(tokens), model.component_forward(tokens)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.pre, expected.pre)
    torch.testing.assert_close(loaded.causal_importance(tokens), model.causal_importance(tokens))


def test_a_pattern_that_matches_no_matrix():
    target = huggingface_model("gpt2", torch.float32).target_model
    with pytest.raises(RunFormatError, match=r"'transformer.h.0.ln_1', not a matrix: LayerNorm"):
        expand_patterns((("*.ln_1", 2),), target)
