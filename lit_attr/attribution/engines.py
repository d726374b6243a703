"""Which engine computes which edge block."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.closed_form.edges import closed_edges
from lit_attr.attribution.closed_form.engine import ClosedFormEngine
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.errors import ConfigurationError
from lit_attr.storage.sums import Sums
from lit_attr.topology.graph import Topology

EngineName = Literal["auto", "closed_form", "autograd"]
_SHOWN = 6


@dataclass(frozen=True)
class AttributionEngine:
    """Closed forms for some edge blocks, gradients for the others.

    Attributes:
        closed_form: Of the first; None where there are none.
        autograd: Of the others; None where there are none.
        blocks: Name of an engine to its edge blocks, as `source->target`.
    """

    closed_form: ClosedFormEngine | None
    autograd: AutogradEngine | None
    blocks: Mapping[str, list[str]]

    @property
    def needs_graph(self) -> bool:
        """Whether the capture must have a graph."""
        return self.autograd is not None

    def truncated(self) -> "AttributionEngine":
        """What is needed to see how memory grows with a batch: the closed forms stay within their workspace."""
        return AttributionEngine(None, self.autograd and self.autograd.truncated(), {})

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch.

        Args:
            sums: Changed in place.
            capture: Of the component forward; with its graph where `needs_graph`.
            ci: Layer to causal importances.

        Raises:
            ConfigurationError: If the workspace does not hold one sequence.
        """
        for engine in (self.closed_form, self.autograd):
            if engine is not None:
                engine.add_(sums, capture, ci)

    def describe(self) -> str:
        """The choice, for a log."""
        total = sum(len(blocks) for blocks in self.blocks.values())
        parts = []
        for name, blocks in self.blocks.items():
            few = ", ".join(blocks[:_SHOWN]) + (", ..." if len(blocks) > _SHOWN else "")
            which = "" if len(blocks) == total else f" ({few})"
            parts.append(f"{name} for {len(blocks)} of {total} edge blocks{which}")
        return "; ".join(parts)


def build_engine(
    name: EngineName,
    model: DecomposedModel,
    topology: Topology,
    alive: Mapping[str, Bool[Tensor, " component"]],
    targets_per_pass: int,
    workspace_bytes: int,
) -> AttributionEngine:
    """Choose an engine for each edge block.

    Args:
        name: `autograd` or `closed_form` for all of them, or `auto`: the closed form wherever it is exact.
        model: Whose attributions are computed; on its device already.
        topology: The attribution graph.
        alive: Layer to the components that are targets.
        targets_per_pass: Of `autograd`.
        workspace_bytes: Of the closed forms.

    Raises:
        ConfigurationError: If `closed_form` is asked for and not exact everywhere.
    """
    edges = [] if name == "autograd" else closed_edges(topology, model.anatomy())
    closed = {(edge.source, edge.target) for edge in edges}
    rest = {
        target: kept
        for target, sources in topology.sources.items()
        if (kept := tuple(source for source in sources if (source, target) not in closed))
    }
    blocks = {
        "closed_form": [f"{edge.source}->{edge.target}" for edge in edges],
        "autograd": [f"{source}->{target}" for target, sources in rest.items() for source in sources],
    }
    if name == "closed_form" and rest:
        raise ConfigurationError(
            f"model.engine closed_form: {len(blocks['autograd'])} edge blocks have no closed form, an undecomposed "
            f"sublayer lies on their paths: {', '.join(blocks['autograd'][:_SHOWN])}...; use auto"
        )
    return AttributionEngine(
        ClosedFormEngine(model, topology, alive, edges, workspace_bytes) if edges else None,
        AutogradEngine(replace(topology, sources=rest), alive, targets_per_pass) if rest else None,
        {engine: found for engine, found in blocks.items() if found},
    )
