import torch

from lit_attr.decomposition.ci.build import build_ci
from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.targets.gpt2_simple import GPT2Simple, GPT2SimpleConfig
from tools.demo.decompose import DecompositionTraining
from tools.demo.orient import orient_
from tools.demo.write_run import decomposed_model, run_options

PATHS = {"h.0.attn.v_proj": 6, "h.0.attn.o_proj": 5}


def test_activations_become_positive_where_they_matter_and_the_model_stays_the_same():
    torch.manual_seed(0)
    config = GPT2SimpleConfig(block_size=8, vocab_size=11, n_layer=1, n_head=2, n_embd=8)
    ci_options = {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": [4]}
    components = {path: LinearComponents(8, 8, count, bias=True) for path, count in PATHS.items()}
    for part in components.values():
        part.V.data.normal_()
        part.U.data.normal_()
    options = run_options(PATHS, ci_options, DecompositionTraining(), seed=0, context=8)
    ci_fn = build_ci(ci_options, components)
    model = decomposed_model(GPT2Simple(config), config, components, ci_fn, options)
    tokens = torch.randint(11, (16, 8))
    before = model.component_forward(tokens)
    orient_(model, tokens)
    after = model.component_forward(tokens)
    torch.testing.assert_close(after.logits, before.logits)
    importances = model.causal_importance(tokens)
    for layer, activations in after.post.items():
        assert ((importances[layer] * activations).sum((0, 1)) >= -1e-5).all()
    assert any(not torch.equal(after.post[layer], before.post[layer]) for layer in after.post)
