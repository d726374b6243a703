"""Which sums a harvest keeps, or the part of it that has some of the targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lit_attr.topology.address import OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.words import Harvested


@dataclass(frozen=True, eq=False)
class Layout:
    """Which sums are kept.

    Attributes:
        topology: The attribution graph of the model.
        inputs: Names of the inputs (see `Topology.inputs`) whose sums of `attr` are kept.
        targets: Layer of components to those whose sums of `attr_abs` are kept, ascending, int64, on the CPU. Where
            this metric is harvested all target layers are here, even with none of their components; else none is.
        squares: Layer of components to those of whose edges squares of `attr` are kept, likewise: all targets that read
            one of the inputs. See `Squares`.
        squares_dtype: Floating-point type of all squares; None where none are kept.
    """

    topology: Topology
    inputs: tuple[str, ...]
    targets: Mapping[str, Int[Tensor, " target"]]
    squares: Mapping[str, Int[Tensor, " target"]] = field(default_factory=dict)
    squares_dtype: torch.dtype | None = None

    @classmethod
    def of(
        cls,
        topology: Topology,
        alive: Mapping[str, Bool[Tensor, " _component"]],
        metrics: Harvested,
        squares_dtype: torch.dtype | None = None,
    ) -> "Layout":
        """The sums of a whole harvest.

        Args:
            topology: The attribution graph.
            alive: Layer to the components that are targets.
            metrics: Which metrics are summed.
            squares_dtype: Floating-point type of the squares that standard errors need; None where none are kept.
        """
        of_components = topology.component_targets if metrics == "both" else []
        inputs = [
            name
            for name, readers in topology.readers.items()
            if any(reader == OUTPUT or bool(alive[reader].any()) for reader in readers)
        ]
        targets = {target: alive[target].nonzero()[:, 0] for target in topology.component_targets}
        squares = (
            {} if squares_dtype is None else {t: ids for t, ids in targets.items() if topology.inputs[t] in inputs}
        )
        return cls(topology, tuple(inputs), {t: targets[t] for t in of_components}, squares, squares_dtype)

    @property
    def metrics(self) -> Harvested:
        """Which metrics are summed."""
        return "both" if self.targets else "attr"

    @property
    def asked_inputs(self) -> list[str]:
        """Names of the inputs at which either metric is asked for."""
        return [
            name
            for name, readers in self.topology.readers.items()
            if name in self.inputs or any(len(self.targets.get(reader, ())) for reader in readers)
        ]

    def part(self, inputs: Sequence[str], targets: Mapping[str, Int[Tensor, " _target"]]) -> "Layout":
        """Some of the sums.

        Args:
            inputs: Names of the inputs that stay.
            targets: The targets that stay.
        """
        squares = {layer: ids for layer, ids in self.squares.items() if self.topology.inputs[layer] in inputs}
        return replace(self, inputs=tuple(inputs), targets=targets, squares=squares)

    def restricted(self, sources: Mapping[str, tuple[str, ...]]) -> "Layout":
        """The sums of some of the edge blocks.

        Args:
            sources: Target layer to the sources that stay.
        """
        topology = self.topology.restricted(sources)
        inputs = tuple(name for name in self.inputs if name in topology.widths)
        return replace(
            self,
            topology=topology,
            inputs=inputs,
            targets={layer: ids for layer, ids in self.targets.items() if layer in sources},
            squares={layer: ids for layer, ids in self.squares.items() if layer in sources},
        )
