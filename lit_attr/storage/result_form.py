"""The form in which the result of a harvest is written, and the size that it then has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from lit_attr.errors import ConfigurationError
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import check_count
from lit_attr.topology.graph import Topology
from lit_attr.topology.squares import N_BLOCKS
from lit_attr.topology.words import DenseChoice, Harvested, ResultDtype

# A result in the original's format is written up to this size where nothing else is asked for, in bytes.
_SMALL = 1 << 32


@dataclass(frozen=True)
class ResultForm:
    """What is written of complete sums.

    Attributes:
        dense: Whether the result has the original's format, which has places for all components: `always`, `never`, or
            `auto`, where it is small and in float32.
        keep: How many of the strongest edges of everything are kept, in place of all edges; None for all.
        dtype: How sums of edges into components are held; in bfloat16 the result has the compact form.

    Raises:
        ConfigurationError: If a setting is not understood, or one contradicts the other.
    """

    dense: DenseChoice = "auto"
    keep: int | None = None
    dtype: ResultDtype = "float32"

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
        if self.dtype not in get_args(ResultDtype):
            raise ConfigurationError(f"dtype must be one of {list(get_args(ResultDtype))}, found {self.dtype!r}")
        setting = "dense always" if self.dense == "always" else "" if self.keep is None else f"keep {self.keep}"
        if self.dtype == "bfloat16" and setting:
            raise ConfigurationError(
                f"dtype bfloat16 is for all edges in the compact form, {setting} asks for a file that has float32 "
                "alone: drop one of them"
            )

    def is_dense(self, nbytes: int) -> bool:
        """Whether a result is written in the original's format.

        Args:
            nbytes: Size of the result in that format.
        """
        is_auto = self.dense == "auto" and self.dtype == "float32"
        return self.dense == "always" or (is_auto and nbytes <= _SMALL)


def result_nbytes(
    topology: Topology,
    metrics: Harvested,
    sources: Mapping[str, int] | None = None,
    targets: Mapping[str, int] | None = None,
    dtype: ResultDtype = "float32",
    *,
    uncertainty: bool = False,
) -> int:
    """Bytes of the tensors of a result: float32, but for the counts of tokens, what is rounded, and standard errors.

    Args:
        topology: The attribution graph.
        metrics: Which metrics were summed.
        sources: Layer, `embed` included, to its number of sources that have a place; all in the dense form.
        targets: Layer of components to its number of targets that have a place, likewise.
        dtype: How sums of edges into components are held.
        uncertainty: Whether it has standard errors.
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
    n_metrics = 2 if metrics == "both" else 1
    into_components = n_metrics * n_edges * (2 if dtype == "bfloat16" else 4)
    of_errors = 0
    if uncertainty:  # and numbers of groups, for each metric and for the output
        all_sources = {**n_components, EMBED: vocab}
        fed = [{source for sources in topology.sources.values() for source in sources}] * n_metrics
        n_groups = sum(
            all_sources[source] for layers in [*fed, {*topology.sources.get(OUTPUT, ())}] for source in layers
        )
        of_errors = 2 * n_metrics * n_edges + 2 * N_BLOCKS * to_output + 4 * n_groups
    return into_components + 4 * (to_output + n_others) + 8 * vocab + of_errors
