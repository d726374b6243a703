"""The form in which the result of a harvest is written, and the size that it then has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from lit_attr.errors import ConfigurationError
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import check_count
from lit_attr.topology.graph import Topology
from lit_attr.topology.words import DenseChoice, Harvested

# A result in the original's format is written up to this size where nothing else is asked for, in bytes.
_SMALL = 1 << 32


@dataclass(frozen=True)
class ResultForm:
    """What is written of complete sums.

    Attributes:
        dense: Whether the result has the original's format, which has places for all components: `always`, `never`, or
            `auto`, where it is small.
        keep: How many of the strongest edges of everything are kept, in place of all edges; None for all.

    Raises:
        ConfigurationError: If a setting is not understood, or one contradicts the other.
    """

    dense: DenseChoice = "auto"
    keep: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.dense not in get_args(DenseChoice):
            raise ConfigurationError(f"dense must be one of {list(get_args(DenseChoice))}, found {self.dense!r}")
        if self.keep is not None:
            check_count("keep", self.keep)
            if self.dense == "always":
                raise ConfigurationError(
                    f"dense always asks for all edges, keep {self.keep} for the strongest alone: drop one of them"
                )

    def is_dense(self, nbytes: int) -> bool:
        """Whether a result is written in the original's format.

        Args:
            nbytes: Size of the result in that format.
        """
        return self.dense == "always" or (self.dense == "auto" and nbytes <= _SMALL)


def result_nbytes(
    topology: Topology,
    metrics: Harvested,
    sources: Mapping[str, int] | None = None,
    targets: Mapping[str, int] | None = None,
) -> int:
    """Bytes of the tensors of a result: float32, but for the counts of tokens.

    Args:
        topology: The attribution graph.
        metrics: Which metrics were summed.
        sources: Layer, `embed` included, to its number of sources that have a place; all in the dense form.
        targets: Layer of components to its number of targets that have a place, likewise.
    """
    n_components, vocab = topology.n_components, topology.vocab_size
    n_sources = {**n_components, EMBED: vocab} if sources is None else sources
    n_targets = n_components if targets is None else targets
    n_edges = sum(
        n_targets[target] * n_sources[source]
        for target in topology.component_targets
        for source in topology.sources[target]
    )
    to_output = topology.d_model * sum(n_sources[source] for source in topology.sources.get(OUTPUT, ()))
    n_others = topology.d_model * vocab + 2 * sum(n_components.values()) + vocab
    return 4 * ((2 if metrics == "both" else 1) * n_edges + to_output + n_others) + 8 * vocab
