"""The form in which the result of a harvest is written."""

from dataclasses import dataclass
from typing import get_args

from lit_attr.errors import ConfigurationError
from lit_attr.topology.choice import check_count
from lit_attr.topology.words import DenseChoice

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
