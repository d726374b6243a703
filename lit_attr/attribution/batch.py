"""The recipe of a batch: from token ids to sums, and what makes attributions of these."""

from collections.abc import Mapping

from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_attr.attribution.engine import Engine
from lit_attr.attribution.normalisers import add_normalisers_
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.sizes import without_autocast
from lit_attr.topology.graph import Topology
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums


def add_batch_(
    sums: Sums,
    model: DecomposedModel,
    topology: Topology,
    engine: Engine,
    tokens: Int[Tensor, "batch seq"],
    batch_id: int = 0,
    first_row: int = 0,
) -> None:
    """Add the attributions and normalisers of a batch, or of some of its rows.

    A forward of the target model gives causal importances; see `add_batch_with_ci_` for the rest. Autocast, where it is
    on, applies to this forward and the next.

    Args:
        sums: Changed in place.
        model: Decomposed model on the device of the tokens.
        topology: The attribution graph.
        engine: Computes the attributions.
        tokens: Token ids.
        batch_id: Global id of the batch; seeds the draws of binomial sampling.
        first_row: Place of the first row in its batch.

    Raises:
        ConfigurationError: If the memory that the engine reserves does not hold one sequence.
    """
    add_batch_with_ci_(sums, model, topology, engine, tokens, model.causal_importance(tokens, batch_id, first_row))


def add_batch_with_ci_(
    sums: Sums,
    model: DecomposedModel,
    topology: Topology,
    engine: Engine,
    tokens: Int[Tensor, "batch seq"],
    ci: Mapping[str, Float[Tensor, "batch seq _"]],
) -> None:
    """Add the attributions and normalisers of a batch whose causal importances are known.

    A forward with all components on gives the activations, from which the engine computes attributions. The engine and
    the sums keep their precision: autocast is off for them.

    Args:
        sums: Changed in place.
        model: Decomposed model on the device of the tokens.
        topology: The attribution graph.
        engine: Computes the attributions.
        tokens: Token ids.
        ci: Layer to causal importances.

    Raises:
        ConfigurationError: If the memory that the engine reserves does not hold one sequence.
    """
    capture = model.component_forward(tokens, graph=engine.needs_graph)
    with without_autocast(tokens.device):
        engine.add_(sums, capture, ci)
        add_normalisers_(sums, topology, capture, ci)


def read_vectors(
    model: DecomposedModel, topology: Topology, alive: Mapping[str, Bool[Tensor, " _component"]]
) -> ReadVectors:
    """What turns sums of `attr`, which are those of inputs, into those of single targets.

    Args:
        model: Decomposed model.
        topology: The attribution graph.
        alive: Layer to the components that are targets.
    """
    vectors = {layer: model.components(layer).V.detach().cpu() for layer in topology.component_targets}
    return ReadVectors(topology.inputs, vectors, alive)
