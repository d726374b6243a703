"""Which sums a harvest keeps, or the part of it that has some of the targets."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from lit_attr.topology.graph import Topology
from lit_attr.topology.words import Harvested


@dataclass(frozen=True, eq=False)
class Layout:
    """Which sums are kept.

    Attributes:
        topology: The attribution graph of the model.
        inputs: Names of the inputs (see `Topology.inputs`) whose sums of `attr` are kept.
        targets: Layer of components to those whose sums of `attr_abs` are kept, ascending, int64, on the CPU; empty
            where this metric is not harvested.
    """

    topology: Topology
    inputs: tuple[str, ...]
    targets: Mapping[str, Int[Tensor, " target"]]

    @classmethod
    def of(cls, topology: Topology, alive: Mapping[str, Bool[Tensor, " _component"]], metrics: Harvested) -> "Layout":
        """The sums of a whole harvest.

        Args:
            topology: The attribution graph.
            alive: Layer to the components that are targets.
            metrics: Which metrics are summed.
        """
        of_components = topology.component_targets if metrics == "both" else []
        return cls(
            topology, tuple(topology.widths), {target: alive[target].nonzero()[:, 0] for target in of_components}
        )
