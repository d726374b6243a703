"""Random models, causal importances and alive masks, and both engines on the same capture."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.closed_form.counts import PairCounts
from lit_attr.attribution.closed_form.edge_blocks import closed_edges
from lit_attr.attribution.closed_form.engine import ClosedFormEngine
from lit_attr.attribution.closed_form.sizes import rows_and_targets
from lit_attr.attribution.closed_form.workspace import Workspace
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.errors import ConfigurationError
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import Harvested
from tests.attribution.named import Named, named_result, without_abs
from tests.sums import layout_of, named_by_source
from tests.toys import ARCHITECTURES, ATTENTION, MATRICES, random_tokens

VOCAB, LONGEST = 9, 65
MB = 1 << 20

Masks = Mapping[str, Tensor]


def architecture_options(
    n_heads: int, n_groups: int, head_width: int, hidden: int, n_layers: int, architecture: str, **llama: Any
) -> dict[str, Any]:
    """Entries of a `model_config.yaml`; those that are of Llamas alone are left out elsewhere."""
    shape = {
        "vocab_size": VOCAB,
        "block_size": LONGEST,
        "n_layer": n_layers,
        "n_head": n_heads,
        "n_embd": n_heads * head_width,
    }
    if architecture == "GPT2Simple":
        return shape
    return {**shape, "n_intermediate": hidden, "n_key_value_heads": n_heads // n_groups, "n_ctx": LONGEST, **llama}


@st.composite
def toys(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `toy_model` for any architecture with every matrix decomposed."""
    architecture = draw(st.sampled_from(ARCHITECTURES))
    n_heads, n_groups = draw(st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (4, 1), (4, 2), (4, 2), (4, 4)]))
    options = architecture_options(
        n_heads,
        n_groups,
        draw(st.sampled_from([2, 4, 6])),
        draw(st.integers(1, 12)),
        draw(st.integers(1, 2)),
        architecture,
        attn_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        rotary_adjacent_pairs=draw(st.booleans()),
    )
    counts = {matrix: draw(st.integers(1, 7)) for matrix in MATRICES[architecture] + ATTENTION}
    return {
        "architecture": architecture,
        "seed": draw(st.integers(0, 10_000)),
        "model_options": options,
        "module_info": [{"module_pattern": f"h.*.{matrix}", "C": count} for matrix, count in counts.items()],
    }


token_batches = st.builds(
    random_tokens,
    n_rows=st.integers(1, 4),
    seq_len=st.one_of(st.integers(1, 12), st.integers(31, LONGEST)),
    seed=st.integers(0, 100),
    vocab=st.integers(1, VOCAB),
)
densities = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))


def unit_size(model: DecomposedModel) -> DecomposedModel:
    """Rescale the components so that activations and attention scores are of about unit size: float32 suffices."""
    for layer in model.paths:
        components = model.components(layer)
        for matrix in (components.V, components.U):
            matrix.mul_(matrix.shape[0] ** -0.5 / 0.6)
    return model


def random_ci(model: DecomposedModel, tokens: Tensor, density: float, seed: int = 0) -> dict[str, Tensor]:
    """Uniform values at random entries, exactly zero elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    dtype = model.unembedding.dtype

    def of(count: int) -> Tensor:
        shape = (*tokens.shape, count)
        kept = torch.rand(shape, generator=generator) < density
        return torch.rand(shape, generator=generator, dtype=dtype) * kept

    return {layer: of(count) for layer, count in model.n_components.items()}


def random_alive(model: DecomposedModel, share: float, dead: Iterable[str] = (), seed: int = 0) -> dict[str, Tensor]:
    """Masks with this share of components alive, some layers dead as a whole."""
    generator = torch.Generator().manual_seed(seed)
    masks = {layer: torch.rand(count, generator=generator) < share for layer, count in model.n_components.items()}
    return {layer: mask & (layer not in dead) for layer, mask in masks.items()}


def closed_form_engine(
    model: DecomposedModel, alive: Masks | None = None, workspace_bytes: int = 64 * MB
) -> ClosedFormEngine:
    """For every edge block that has a closed form."""
    topology = trace_topology(model)
    edges = closed_edges(topology, model.anatomy())
    return ClosedFormEngine(model, layout_of(topology, alive=alive), edges, workspace_bytes)


def closed_form_sums(
    model: DecomposedModel,
    tokens: Tensor,
    ci: Mapping[str, Tensor],
    alive: Masks | None = None,
    workspace_bytes: int = 64 * MB,
    into: Sums | None = None,
    metrics: Harvested = "both",
) -> Sums:
    """What the closed forms add."""
    engine = closed_form_engine(model, alive, workspace_bytes)
    if into is None:
        sums = Sums.zeros(engine.layout, model.dtype)
        into = sums if metrics == "both" else sums.signed()
    sums = into
    engine.add_(sums, model.component_forward(tokens, graph=False), ci)
    return sums


def smallest_workspace(model: DecomposedModel, tokens: Tensor, ci: Mapping[str, Tensor]) -> int:
    """The fewest bytes that are accepted."""
    engine = closed_form_engine(model)
    counts = PairCounts.of(ci, list(ci))
    n_sources = max([len(tokens.unique()), *map(len, counts.components.values())])
    widths = engine.widths(tokens.shape[1], counts.most, counts.most_of_a_layer, n_sources, model.dtype, with_abs=True)
    refused, accepted = 0, 1 << 40
    while accepted - refused > 1:
        middle = (refused + accepted) // 2
        try:
            rows_and_targets(widths, Workspace(middle, tokens.device))
        except ConfigurationError:
            refused = middle
        else:
            accepted = middle
    return accepted


def both_engines(
    model: DecomposedModel,
    tokens: Tensor,
    ci: Mapping[str, Tensor],
    alive: Masks | None = None,
    workspace_bytes: int = 64 * MB,
    metrics: Harvested = "both",
) -> tuple[Named, Named]:
    """Results of the closed forms, and of gradients that are taken for both metrics, from one capture."""
    closed_form = closed_form_engine(model, alive, workspace_bytes)
    topology, capture = closed_form.layout.topology, model.component_forward(tokens)
    found, expected = (Sums.zeros(closed_form.layout, model.unembedding.dtype) for _ in range(2))
    found = found if metrics == "both" else found.signed()
    closed_form.add_(found, capture, ci)
    AutogradEngine(closed_form.layout, 100).add_(expected, capture, ci)
    of_closed_form, by_definition = (named_result(sums, model, alive, topology) for sums in (found, expected))
    return of_closed_form, by_definition if metrics == "both" else without_abs(by_definition)


def assert_close(found: Sums | Named, expected: Sums | Named, tolerance: float, smallest: float = 1e-2) -> None:
    """Equal blocks, each relative to its own norm, or, where it is rounding noise, to the largest of its kind.

    Kinds whose every norm is below `smallest` are taken for noise of activations of that size.
    """
    mine, theirs = (named_by_source(sums) if isinstance(sums, Sums) else sums for sums in (found, expected))
    assert mine.keys() == theirs.keys()
    norms = {name: float(tensor.double().norm()) for name, tensor in theirs.items()}
    largest: dict[str, float] = {}
    for name, norm in norms.items():
        largest[kind(name)] = max(largest.get(kind(name), 0.0), norm)
    for name, norm in norms.items():
        scale = norm if norm > 1e-3 * largest[kind(name)] else largest[kind(name)]
        error = float((mine[name].double() - theirs[name].double()).norm())
        assert error <= tolerance * max(scale, smallest), f"{name}: {error} of {scale}"


def kind(name: str) -> str:
    """Which of the storage's kinds of blocks: metric, from tokens or not, to the output or not."""
    metric, _, edge = name.partition("/")
    source, _, target = edge.partition("->")
    return f"{metric} {source == 'embed'} {target == 'output'}"
