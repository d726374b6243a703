"""What a token costs, counted: floating-point operations by kind of work, and what tables are read and written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from lit_attr.attribution.closed_form.edge_blocks import EdgeBlock
from lit_attr.attribution.engine_choice import EngineChoice
from lit_attr.attribution.forward_mode.locality import mixes_positions
from lit_attr.decomposition.anatomy import Attention, Mlp
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.harvest.needs import Live
from lit_attr.harvest.shape import Shape
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.words import METRICS

Kind = Literal["forwards", "stream", "mlp", "value", "query", "key", "jvp"]
# A result of an edge block is multiplied, and then read with what it is added to and written.
_PASSES_OVER_TABLES = 5
# How often the patterns of an attention, or products with them, are computed for its three edge blocks together.
_PATTERNS = 5
# A Jacobian-vector product against a forward.
_JVP_PASSES = 3


@dataclass(frozen=True)
class Density:
    """How much of the components is at work in a batch.

    Attributes:
        share: Share of a layer's components whose causal importance is not zero, at a position.
        seq_len: Positions of a sequence.
        n_rows: Sequences that are taken at once.
    """

    share: float
    seq_len: int
    n_rows: int

    @property
    def n_positions(self) -> int:
        """Positions that are taken at once."""
        return self.seq_len * self.n_rows

    def active(self, n_components: int, n_live: int) -> float:
        """Components of a layer that are at work at a position."""
        return min(float(n_live), self.share * n_components)


@dataclass(frozen=True)
class Work:
    """Work for one token.

    Attributes:
        flops: Kind to floating-point operations of `attr` alone; `forwards` are in both metrics once.
        abs_flops: Kind to what `attr_abs` needs on top.
        table_numbers: Numbers of tables that are read or written for `attr`.
        abs_table_numbers: Numbers of tables for `attr_abs` on top.
    """

    flops: Mapping[Kind, float]
    abs_flops: Mapping[Kind, float]
    table_numbers: float
    abs_table_numbers: float


def work_per_token(shape: Shape, choice: EngineChoice, live: Live, density: Density) -> Work:
    """Count the work of a harvest for one token.

    Args:
        shape: The model without numbers.
        choice: Which engine computes which edge block.
        live: What has a place in the tables.
        density: How much of it is at work in a batch.
    """
    topology = shape.topology
    once = {readers[0] for readers in topology.readers.values()}  # `attr` is that of an input, whoever reads it
    flops: dict[Kind, float] = dict.fromkeys(get_args(Kind), 0.0)
    flops["forwards"] = forward_flops(shape.model, density.seq_len)
    abs_flops, tables = dict.fromkeys(flops, 0.0), dict.fromkeys(METRICS, 0.0)
    for edge in choice.closed_form:
        n_live = live.sources[edge.source]
        n = 1.0 if edge.source == EMBED else density.active(topology.n_components[edge.source], n_live)
        rows = min(n_live, n * density.n_positions)
        n_targets = 0 if edge.target == OUTPUT else live.targets[edge.target]
        width = topology.widths[topology.inputs[edge.target]]
        signed, by_target = _edge_flops(edge, n, width, density.seq_len)
        if edge.target in once:
            flops[edge.kind] += signed
            tables["attr"] += rows * width * _PASSES_OVER_TABLES
        abs_flops[edge.kind] += by_target * n_targets
        tables["attr_abs"] += rows * n_targets * _PASSES_OVER_TABLES
        if edge.kind == "stream" and edge.source != EMBED:  # write vectors times read vectors, once in a batch
            abs_flops["stream"] += 2 * rows * width * n_targets / density.n_positions
    flops["jvp"] = _JVP_PASSES * flops["forwards"] * sum(_passes(shape, choice, live, density))
    return Work(flops, abs_flops, tables["attr"] / density.n_positions, tables["attr_abs"] / density.n_positions)


def _edge_flops(edge: EdgeBlock, n: float, width: int, seq_len: int) -> tuple[float, float]:
    """Operations of a token: for `attr`, and for `attr_abs` of each target; see docs/performance.md."""
    if isinstance(edge.through, Mlp):
        return 2 * n * width, 2 * n * width
    if isinstance(edge.through, Attention):
        heads = edge.through.n_heads
        if edge.kind == "value":
            return heads * (seq_len + 2 * n) + _PATTERNS * 2 * width * seq_len, heads * (seq_len + 2 * n)
        return 2 * n * width * seq_len, 2 * n * (width if edge.kind == "query" else heads * seq_len)
    return (2 * width, 2 * width + 2) if edge.source == EMBED else (4 * n * width, 4 * n)


def forward_flops(model: DecomposedModel, seq_len: int) -> float:
    """Floating-point operations of both forwards and of causal importances, for one token.

    Args:
        model: The model without numbers.
        seq_len: Positions of a sequence.
    """
    anatomy = model.anatomy()
    attentions = [s for s in anatomy.sublayers if isinstance(s, Attention)] if anatomy else []
    scores = sum(4 * seq_len * attention.n_heads * attention.head_width for attention in attentions)
    target = _matrix_numbers(model.target_model)
    parts = [model.components(layer) for layer in model.paths]
    factors = [(part.V.numel(), part.U.numel()) for part in parts]
    decomposed = sum(model.weight(layer).numel() for layer in model.paths)
    # Without training, importances are found from the components' activations.
    importances = sum(v for v, _ in factors) if model.config is None else _matrix_numbers(model.ci_fn)
    component_forward = target - decomposed + sum(v + u for v, u in factors)
    unembedding = model.d_model * model.vocab_size  # of the components alone: importances need no logits
    return 2.0 * (target - unembedding + component_forward + importances + scores)


def _matrix_numbers(module: nn.Module) -> int:
    """Numbers of all matrices that a token is multiplied with: embeddings are looked up."""
    return sum(
        parameter.numel()
        for part in module.modules()
        if not isinstance(part, nn.Embedding)
        for parameter in part.parameters(recurse=False)
        if parameter.ndim > 1
    )


def _passes(shape: Shape, choice: EngineChoice, live: Live, density: Density) -> Iterator[float]:
    """Forward-mode passes of each source layer, for one token: each active source of a sequence has a tangent."""
    topology, anatomy = shape.topology, shape.model.anatomy()
    groups = {
        (source, mixes_positions(source, target, anatomy, topology.n_components))
        for target, sources in choice.forward_mode.items()
        for source in sources
    }
    for source, mixes in groups:
        n = 1.0 if source == EMBED else density.active(topology.n_components[source], live.sources[source])
        # Where positions do not mix, one tangent serves another source at each of them.
        tangents = min(live.sources[source], n * density.seq_len) if mixes else n
        yield tangents
