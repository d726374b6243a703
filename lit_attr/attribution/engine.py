"""What every engine offers, and how engines that share the edge blocks of a model become one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lit_attr.decomposition.model import Capture
from lit_attr.topology.sums import Sums


@runtime_checkable
class Gathered(Protocol):
    """What an engine takes of a batch, layer by layer while it is computed, and what is added of it in the end."""

    @property
    def recorded(self) -> Collection[str] | None:
        """Paths of norms and layers whose `stream` and `inner` must be in the capture; None for a whole capture."""

    def take_importances(self, layer: str, ci: Float[Tensor, "batch seq component"]) -> None:
        """Take what is needed of the causal importances of a layer; those of all layers come before any activations."""

    def take_activations(self, layer: str, activations: Float[Tensor, "batch seq component"]) -> None:
        """Take what is needed of the component activations of a layer."""

    def add_(self, capture: Capture) -> None:
        """Add the attributions of the batch; see `Engine.add_`."""


@runtime_checkable
class Engine(Protocol):
    """Computes the attributions of some edge blocks from a captured batch."""

    @property
    def needs_graph(self) -> bool:
        """Whether the capture must hold its graph."""

    @property
    def reserved_bytes(self) -> int:
        """Memory for temporaries that stay within a bound, whatever the batch; other temporaries grow with it."""

    def truncated(self) -> "Engine":
        """An engine that shows quickly how memory grows with a batch; its sums are incomplete.

        It leaves out what stays within `reserved_bytes`, and repetitions that need no more memory than the first.
        """

    def gather(self, sums: Sums) -> Gathered:
        """Begin a batch, of which is held only what the engine needs.

        Args:
            sums: Changed in place when the batch is added.
        """

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch.

        Args:
            sums: Changed in place.
            capture: From the component forward; with its graph where `needs_graph`.
            ci: Layer to causal importances.

        Raises:
            ConfigurationError: If the reserved memory does not hold one sequence.
        """


class Whole:
    """A batch that an engine takes as it is: all causal importances, and the whole capture.

    Args:
        engine: The engine.
        sums: Changed in place when the batch is added.
    """

    recorded = None

    def __init__(self, engine: Engine, sums: Sums) -> None:
        self._engine = engine
        self._sums = sums
        self._ci: dict[str, Tensor] = {}

    def take_importances(self, layer: str, ci: Float[Tensor, "batch seq component"]) -> None:
        """Keep them."""
        self._ci[layer] = ci

    def take_activations(self, layer: str, activations: Float[Tensor, "batch seq component"]) -> None:
        """Nothing: they are in the capture."""

    def add_(self, capture: Capture) -> None:
        """Add the attributions of the batch."""
        self._engine.add_(self._sums, capture, self._ci)


@dataclass(frozen=True)
class CombinedEngine:
    """Engines that compute different edge blocks of one model, one after the other.

    Attributes:
        engines: Name to engine; none at all is an engine that adds nothing.
    """

    engines: Mapping[str, Engine]

    @property
    def needs_graph(self) -> bool:
        """Whether any engine needs the graph of the capture."""
        return any(engine.needs_graph for engine in self.engines.values())

    @property
    def reserved_bytes(self) -> int:
        """The memory that the engines reserve, together: each keeps its own."""
        return sum(engine.reserved_bytes for engine in self.engines.values())

    def truncated(self) -> "CombinedEngine":
        """All engines truncated; see `Engine.truncated`."""
        return CombinedEngine({name: engine.truncated() for name, engine in self.engines.items()})

    def gather(self, sums: Sums) -> Gathered:
        """What a single engine needs; several take the whole batch."""
        engines = list(self.engines.values())
        return engines[0].gather(sums) if len(engines) == 1 else Whole(self, sums)

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch; see `Engine.add_`."""
        for engine in self.engines.values():
            engine.add_(sums, capture, ci)
