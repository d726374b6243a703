"""A small harvest in memory, gradient by gradient, of the edges that a name's chains are made of."""

import torch
from jaxtyping import Int
from torch import Tensor

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.normalisers import add_normalisers_
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.demo.mechanism import StoredAttributions
from lit_attr.storage.sums import Sums
from lit_attr.topology.address import OUTPUT
from lit_attr.topology.graph import Topology

_TARGETS_PER_PASS = 20
_CHAIN_TARGETS = (".attn.v", ".attn.o", OUTPUT)


def harvest_chains(model: DecomposedModel, tokens: Int[Tensor, "story seq"], batch_size: int) -> StoredAttributions:
    """Attributions to value components, attention-output components and the output, summed over stories.

    Args:
        model: The decomposed model.
        tokens: Stories.
        batch_size: Stories at a time.
    """
    # A component that matters nowhere adds nothing to any chain.
    alive = {layer: (ci > 0).any(0).any(0) for layer, ci in model.causal_importance(tokens).items()}
    whole = trace_topology(model)
    sources = {
        target: names
        for target, names in whole.sources.items()
        if target.endswith(_CHAIN_TARGETS) and (target == OUTPUT or alive[target].any())
    }
    topology = Topology(whole.n_components, sources, whole.vocab_size, whole.d_model)
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
