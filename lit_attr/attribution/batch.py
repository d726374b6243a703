"""The recipe of a batch: from token ids to sums, and what makes attributions of these."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_attr.attribution.engine import Engine
from lit_attr.attribution.normalisers import add_activations_, add_ends_, add_importances_
from lit_attr.decomposition.model import DecomposedModel, Visitor
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
    find = partial(model.visit_importances, tokens, batch_id=batch_id, first_row=first_row)
    _add_batch_(sums, model, topology, engine, tokens, find)


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

    def go_through(visit: Visitor) -> None:
        for layer, values in ci.items():
            visit(layer, values)

    _add_batch_(sums, model, topology, engine, tokens, go_through)


def _add_batch_(
    sums: Sums,
    model: DecomposedModel,
    topology: Topology,
    engine: Engine,
    tokens: Int[Tensor, "batch seq"],
    find_importances: Callable[[Visitor], None],
) -> None:
    """Add a batch; of causal importances and activations only what is taken is held longer than a layer's turn."""
    precise = partial(without_autocast, tokens.device)
    targets = set(topology.component_targets)
    gathered = engine.gather(sums)

    def take_importances(layer: str, ci: Tensor) -> None:
        with precise():
            add_importances_(sums, layer, ci)
            gathered.take_importances(layer, ci)

    def take_activations(layer: str, activations: Tensor) -> None:
        with precise():
            if layer in targets:
                add_activations_(sums, layer, activations.detach())
            gathered.take_activations(layer, activations)

    find_importances(take_importances)
    if gathered.recorded is None:
        capture = model.component_forward(tokens, graph=engine.needs_graph)
        for layer, activations in capture.post.items():
            take_activations(layer, activations)
    else:
        capture = model.visit_components(tokens, take_activations, gathered.recorded)
    with precise():
        add_ends_(sums, capture)
        capture = replace(capture, logits=capture.logits.new_empty(*tokens.shape, 0))  # the largest of all tensors
        gathered.add_(capture)


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
