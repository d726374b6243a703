"""A decomposition of which only the numbers of components are known: for plans of runs that are not at hand."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import Tensor

from lit_attr.decomposition.untrained.rule import Decomposition, Factors
from lit_attr.errors import ConfigurationError


class Counted(Decomposition):
    """So many components of each matrix, for models without numbers.

    Args:
        counts: Pattern (`*` matches all) of matrices to the number of components of each; the first that matches
            decides, and matrices that none matches are left whole.
    """

    def __init__(self, counts: Sequence[tuple[str, int]]) -> None:
        super().__init__(matrices=[pattern for pattern, _ in counts])
        self.counts = counts

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Counted":
        """Understand words of the command line, such as `6144`, or `*.attn.*=4096`.

        Raises:
            ConfigurationError: If one is neither a number nor a pattern with a number.
        """
        counts = []
        for word in words:
            pattern, _, count = word.rpartition("=")
            if not count.isdecimal() or not int(count):
                raise ConfigurationError(f"--components: expected a number, or PATTERN=NUMBER, found {word!r}")
            counts.append((pattern or "*", int(count)))
        return cls(counts)

    def factors(self, layer: str, weight: Tensor) -> Factors | None:
        """Factors of the right shapes; see `Decomposition.factors`."""
        count = next(count for pattern, count in self.counts if fnmatchcase(layer, pattern))
        d_in, d_out = weight.shape
        return weight.new_empty(d_in, count), weight.new_empty(count, d_out)
