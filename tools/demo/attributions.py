"""A small harvest in memory, gradient by gradient, of the edges that a name's chains are made of."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.batch import add_batch_, read_vectors
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.topology.address import OUTPUT
from lit_attr.topology.layout import Layout
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums

_TARGETS_PER_PASS = 20
_CHAIN_TARGETS = (".attn.v", ".attn.o", OUTPUT)


def harvest_chains(
    model: DecomposedModel, sets: Sequence[Int[Tensor, "_story seq"]], batch_size: int
) -> tuple[list[Sums], ReadVectors]:
    """Attributions to value components, attention-output components and the output, for each set of stories.

    Args:
        model: The decomposed model.
        sets: Sets of stories.
        batch_size: Number of stories that are computed at a time.

    Returns:
        The sums over each set, and what makes attributions of them.
    """
    # A component that matters nowhere adds nothing to any chain.
    alive = _alive(model, [batch for tokens in sets for batch in tokens.split(batch_size)])
    whole = trace_topology(model)
    sources = {
        target: names
        for target, names in whole.sources.items()
        if target.endswith(_CHAIN_TARGETS) and (target == OUTPUT or alive[target].any())
    }
    topology = whole.restricted(sources)
    layout = Layout.of(topology, alive, "attr")
    engine = AutogradEngine(layout, _TARGETS_PER_PASS)
    harvested = []
    for tokens in sets:
        sums = Sums.zeros(layout, torch.float32)
        for batch in tokens.split(batch_size):
            add_batch_(sums, model, topology, engine, batch)
        harvested.append(sums)
    return harvested, read_vectors(model, topology, alive)


def _alive(
    model: DecomposedModel, batches: Sequence[Int[Tensor, "_story seq"]]
) -> dict[str, Bool[Tensor, " _component"]]:
    alive = {layer: torch.zeros(count, dtype=torch.bool) for layer, count in model.n_components.items()}
    for batch in batches:
        for layer, ci in model.causal_importance(batch).items():
            alive[layer] |= (ci > 0).any(0).any(0)
    return alive
