"""The attribution graph: which layers feed which without another decomposed matrix between them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lit_attr.topology.address import OUTPUT


@dataclass(frozen=True)
class Topology:
    """The layers of a model, and which of them feeds which.

    Attributes:
        n_components: Canonical layer of each decomposed matrix to its number of components, in module order.
        sources: Target layer (`output` included) to the layers that feed it (`embed` included), in order of discovery.
        vocab_size: Number of token ids.
        d_model: Width of the residual stream.
        inputs: Target layer (`output` included) to the name of its input: the first target that reads the same tensor,
            such as the output of a norm.
        widths: Name of an input to its width.
    """

    n_components: Mapping[str, int]
    sources: Mapping[str, tuple[str, ...]]
    vocab_size: int
    d_model: int
    inputs: Mapping[str, str]
    widths: Mapping[str, int]

    @property
    def component_targets(self) -> list[str]:
        """The targets that are decomposed matrices."""
        return [target for target in self.sources if target != OUTPUT]

    @property
    def readers(self) -> dict[str, list[str]]:
        """Name of an input to the targets that read it, in the order of `sources`."""
        readers: dict[str, list[str]] = {}
        for target in self.sources:
            readers.setdefault(self.inputs[target], []).append(target)
        return readers

    def restricted(self, sources: Mapping[str, tuple[str, ...]]) -> "Topology":
        """This graph with some of its edge blocks.

        Args:
            sources: Target layer to the sources that stay.
        """
        inputs = {target: self.inputs[target] for target in sources}
        widths = {name: self.widths[name] for name in inputs.values()}
        return replace(self, sources=dict(sources), inputs=inputs, widths=widths)
