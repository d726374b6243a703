"""Which metrics a result has, and from how much of the data: entries of its provenance, written and read here alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lit_attr.storage.batch_coverage import damaged
from lit_attr.topology.words import HARVESTED, Harvested

_METRICS, _SHARE, _N_TOKENS = METRIC_ENTRIES = ("metrics", "abs_share", "n_abs_tokens")


@dataclass(frozen=True)
class Sample:
    """The part of the data from which the sums of `attr_abs` are estimated; they are scaled to all of the data.

    Attributes:
        share: The share of the sequences that was asked for, above 0 and below 1.
        n_tokens: Number of tokens that were summed.
        n_all_tokens: Number of tokens of all data.
    """

    share: float
    n_tokens: int
    n_all_tokens: int

    def __str__(self) -> str:
        """The sample in words, such as `attr_abs from 10 % of the sequences (13,107 of 131,072 tokens)`."""
        share = f"{100 * self.share:.4g} % of the sequences"
        return f"attr_abs from {share} ({self.n_tokens:,} of {self.n_all_tokens:,} tokens)"


@dataclass(frozen=True)
class HarvestedMetrics:
    """Which metrics were harvested, and the share of the sequences from which the sums of `attr_abs` are.

    Sums of a share are stored scaled to all tokens, by the number of all tokens divided by `n_abs_tokens`.

    Attributes:
        metrics: `both`, or `attr` for a harvest of `attr` alone.
        abs_share: The share of the sequences whose `attr_abs` was asked for, above 0 and at most 1.
        n_abs_tokens: Number of tokens whose `attr_abs` was summed; None for all of them, where the share is 1. It is 0
            where no sequence of the share was among those that were harvested; such a result has no sums of `attr_abs`.
    """

    metrics: Harvested = "both"
    abs_share: float = 1.0
    n_abs_tokens: int | None = None

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> "HarvestedMetrics":
        """Read a provenance; without these entries, it is of both metrics, of all sequences.

        Raises:
            StorageError: If an entry is not as `lit_attr` writes it.
        """
        stored: list[Any] = [entries.get(name) for name in METRIC_ENTRIES]
        metrics, share, n_tokens = stored
        if metrics is not None and not (isinstance(metrics, str) and metrics in HARVESTED):
            raise damaged(_METRICS, f"one of {list(HARVESTED)}", metrics)
        if share is not None and metrics == "attr":
            raise damaged(_SHARE, "none beside metrics attr", share)
        if share is not None and not (type(share) in (int, float) and 0 < share <= 1):
            raise damaged(_SHARE, "a number above 0 and at most 1", share)
        is_sampled = share is not None and share < 1
        if n_tokens is not None and not is_sampled:
            raise damaged(_N_TOKENS, f"none beside abs_share {share}", n_tokens)
        if is_sampled and not (type(n_tokens) is int and n_tokens >= 0):
            raise damaged(_N_TOKENS, f"a number beside abs_share {share}", n_tokens)
        return cls(metrics or "both", float(share or 1), n_tokens)

    @property
    def why_no_abs(self) -> str:
        """Why a result without sums of `attr_abs` has none, and what can be done, in words."""
        if self.n_abs_tokens == 0:
            return (
                f"attr_abs was not harvested (--model.abs_share {self.abs_share:g} chose none of the sequences): ask "
                "for attr, or harvest more sequences, or a larger share"
            )
        why = "--model.metrics attr" if self.metrics == "attr" else "the result has no sums of it"
        return f"attr_abs was not harvested ({why}): ask for attr, or harvest with --model.metrics both"

    def to_entries(self) -> dict[str, Any]:
        """The provenance's entries, in plain types."""
        if self.n_abs_tokens is None:
            return {_METRICS: self.metrics}
        return dict(zip(METRIC_ENTRIES, (self.metrics, self.abs_share, self.n_abs_tokens), strict=True))
