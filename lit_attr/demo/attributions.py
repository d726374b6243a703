"""A small harvest in memory, gradient by gradient."""

import torch
from jaxtyping import Int
from torch import Tensor

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.normalisers import add_normalisers_
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.demo.mechanism import StoredAttributions
from lit_attr.storage.sums import Sums

_TARGETS_PER_PASS = 16


def harvest(model: DecomposedModel, tokens: Int[Tensor, "story seq"], batch_size: int) -> StoredAttributions:
    """Attributions between all components, summed over stories.

    Args:
        model: The decomposed model.
        tokens: Stories.
        batch_size: Stories at a time.
    """
    topology = trace_topology(model)
    alive = {layer: torch.ones(count, dtype=torch.bool) for layer, count in model.n_components.items()}
    engine = AutogradEngine(topology, alive, _TARGETS_PER_PASS)
    sums = Sums.zeros(topology, torch.float32)
    for batch in tokens.split(batch_size):
        importances = model.causal_importance(batch)
        capture = model.component_forward(batch)
        engine.add_(sums, capture, importances)
        add_normalisers_(sums, topology, capture, importances)
    return StoredAttributions(
        regular_attr=sums.regular,
        embed_attr={layer: by_token.T for layer, by_token in sums.embed.items()},
        unembed_attr=sums.unembed,
        w_unembed=model.unembedding,
        ci_sum=sums.ci,
        component_act_sq_sum=sums.act_sq,
        embed_token_count=sums.token_count,
        n_tokens_processed=int(sums.n_tokens),
    )
