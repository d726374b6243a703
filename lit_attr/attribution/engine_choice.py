"""The choice of an engine for each edge block."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.closed_form.edge_blocks import EdgeBlock, closed_edges
from lit_attr.attribution.closed_form.engine import ClosedFormEngine
from lit_attr.attribution.engine import CombinedEngine, Engine
from lit_attr.attribution.forward_mode.engine import ForwardModeEngine
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.errors import ConfigurationError, few
from lit_attr.topology.graph import Topology
from lit_attr.topology.layout import Layout

EngineName = Literal["auto", "closed_form", "autograd"]


@dataclass(frozen=True)
class EngineChoice:
    """The edge blocks of each engine.

    Attributes:
        closed_form: Edge blocks with a closed form that is used.
        forward_mode: Target layer to the sources of edge blocks that are computed in forward mode.
        autograd: Target layer to the sources of edge blocks that are computed by their definition.
    """

    closed_form: list[EdgeBlock]
    forward_mode: Mapping[str, tuple[str, ...]]
    autograd: Mapping[str, tuple[str, ...]]

    @property
    def blocks(self) -> dict[str, list[str]]:
        """Name of an engine to its edge blocks, as `source->target`; engines without any are left out."""
        # A fused matrix has one closed form for each of its parts.
        closed = dict.fromkeys(f"{edge.source}->{edge.target}" for edge in self.closed_form)
        by_engine = {"closed_form": list(closed)}
        for name, by_target in (("forward_mode", self.forward_mode), ("autograd", self.autograd)):
            by_engine[name] = [f"{source}->{target}" for target, sources in by_target.items() for source in sources]
        return {engine: blocks for engine, blocks in by_engine.items() if blocks}

    def describe(self) -> str:
        """One line for a log."""
        total = sum(len(blocks) for blocks in self.blocks.values())
        parts = []
        for name, blocks in self.blocks.items():
            which = "" if len(blocks) == total else f" ({few(blocks)})"
            parts.append(f"{name} for {len(blocks)} of {total} edge blocks{which}")
        return "; ".join(parts)


def choose_engines(name: EngineName, model: DecomposedModel, topology: Topology) -> EngineChoice:
    """Choose an engine for each edge block.

    Args:
        name: `autograd` or `closed_form` for all of them, or `auto`: the closed form wherever it is exact, and forward
            mode elsewhere.
        model: Decomposed model.
        topology: The attribution graph.

    Raises:
        ConfigurationError: If `closed_form` is asked for and not exact everywhere.
    """
    if name == "autograd":
        return EngineChoice([], {}, topology.sources)
    edges = closed_edges(topology, model.anatomy())
    closed = {(edge.source, edge.target) for edge in edges}
    rest = {
        target: kept
        for target, sources in topology.sources.items()
        if (kept := tuple(source for source in sources if (source, target) not in closed))
    }
    choice = EngineChoice(edges, rest, {})
    if name == "closed_form" and rest:
        open_blocks = choice.blocks["forward_mode"]
        raise ConfigurationError(
            f"model.engine closed_form: {len(open_blocks)} edge blocks have no closed form, an undecomposed sublayer "
            f"lies on their paths: {few(open_blocks)}; "
            "use auto"
        )
    return choice


def build_engine(
    choice: EngineChoice,
    model: DecomposedModel,
    layout: Layout,
    targets_per_pass: int,
    workspace_bytes: int,
) -> CombinedEngine:
    """Build the engines that were chosen.

    Args:
        choice: Edge blocks of each engine.
        model: Decomposed model, on its device already.
        layout: The sums that are asked for.
        targets_per_pass: Gradients in one pass of `autograd`, and tangents in one pass of forward mode.
        workspace_bytes: Memory for temporaries of the closed forms.

    Returns:
        One engine of those that have any edge block, under the names of `EngineChoice.blocks`.
    """
    edges = choice.closed_form

    engines: dict[str, Engine] = {}
    if edges:
        engines["closed_form"] = ClosedFormEngine(model, layout, edges, workspace_bytes)
    if choice.forward_mode:
        engines["forward_mode"] = ForwardModeEngine(model, layout.restricted(choice.forward_mode), targets_per_pass)
    if choice.autograd:
        engines["autograd"] = AutogradEngine(layout.restricted(choice.autograd), targets_per_pass)
    return CombinedEngine(engines)
