"""A decomposed model without numbers, and its attribution graph: all that sizes depend on."""

from dataclasses import dataclass

from lit_attr.attribution.connectivity import trace_topology
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.sizes import running_without_numbers
from lit_attr.errors import LitAttrError, ShapesUnknownError, reason
from lit_attr.harvest.sources import ModelSource
from lit_attr.topology.graph import Topology


@dataclass(frozen=True)
class Shape:
    """A decomposed model without numbers.

    Attributes:
        model: The model; its tensors have names, shapes and dtypes.
        topology: The attribution graph.
    """

    model: DecomposedModel
    topology: Topology

    @classmethod
    def of(cls, source: ModelSource) -> "Shape":
        """Find the shapes of a model, from its configurations alone.

        Args:
            source: Where it comes from.

        Raises:
            ShapesUnknownError: If its code, or its rule, needs numbers.
            LitAttrError: If it could not be loaded either.
        """
        model = source.without_numbers()
        try:
            with running_without_numbers():
                return cls(model, trace_topology(model))
        except LitAttrError:
            raise
        except Exception as error:  # of code that is not the package's: of any kind
            architecture = model.table.architecture
            raise ShapesUnknownError(f"{architecture} cannot be run without weights: {reason(error)}") from error
