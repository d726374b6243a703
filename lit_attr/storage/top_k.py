"""The strongest of many attributions: at once, or of rows that are seen piece by piece."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.storage.best import has_sign, top_k
from lit_attr.topology.choice import check_count
from lit_attr.topology.live import LiveSet
from lit_attr.topology.positions import Positions
from lit_attr.topology.words import SIGNS, AnySign, Sign


class Segment(NamedTuple):
    """Attributions between one key and the components, or token ids, of a layer that have a place.

    Attributes:
        layer: The layer.
        members: Which components, or token ids, have a place.
        values: A value for each of them.
    """

    layer: str
    members: LiveSet
    values: Float[Tensor, " _member"]


# What stands at some places of the rows that a `RunningTopK` is shown: a number of the caller's.
Where = Callable[[Int[Tensor, "row _best"]], Int[Tensor, "row _best"]]

NOT_FINITE = "the stored sums are not finite: the file is damaged, or the harvest was; `lit-attr verify` names one"


@dataclass(frozen=True)
class DatasetAttributionEntry:
    """One source or target of a component.

    Attributes:
        component_key: `<layer>:<component_idx>`.
        layer: Canonical address.
        component_idx: Component index, or token id.
        value: Normalised attribution.
    """

    component_key: str
    layer: str
    component_idx: int
    value: float


def strongest(segments: Sequence[Segment], k: int, sign: Sign) -> list[DatasetAttributionEntry]:
    """The entries with the largest positive, or the smallest negative, values; best first.

    Args:
        segments: Layers with a value for each of their members.
        k: How many at most; fewer come back where fewer have the sign.
        sign: Which end.

    Raises:
        ConfigurationError: If `k` is no whole number of at least 1, or the sign is unknown.
        StorageError: If a value is not finite.
    """
    if sign not in SIGNS:
        raise ConfigurationError(f"sign must be one of {list(SIGNS)}, found {sign!r}")
    check_count("k", k)
    if not segments:
        return []
    values = torch.cat([segment.values for segment in segments])
    check_finite(values)
    best, places = top_k(values, k, sign)
    mask = has_sign(best, sign)
    keys = Positions.of((layer, members) for layer, members, _ in segments).keys(places[mask].numpy())
    return [
        DatasetAttributionEntry(str(key), key.layer, key.index, value)
        for key, value in zip(keys, best[mask].tolist(), strict=True)
    ]


def check_finite(values: Float[Tensor, "..."], of: str = "") -> None:
    """Refuse values that are no numbers.

    Args:
        values: Any attributions.
        of: What they are, for the message.

    Raises:
        StorageError: If a value is not finite.
    """
    # Much faster than asking each value, and what is not a number is both the smallest and the largest.
    if values.numel() and not all(bound.isfinite() for bound in values.aminmax()):
        raise StorageError(f"{of}: {NOT_FINITE}" if of else NOT_FINITE)


class Entries(NamedTuple):
    """Some entries of each row, best first.

    Attributes:
        values: The numbers by which they rank.
        raw: Raw attributions.
        positions: What stands for them.
    """

    values: Float[Tensor, "row _best"]
    raw: Float[Tensor, "row _best"]
    positions: Int[Tensor, "row _best"]


class RunningTopK:
    """The strongest entries of each row, of rows that are seen piece by piece; of equal ones, the lowest positions.

    Args:
        n_rows: How many rows.
        k: How many entries of a row are kept.
        sign: Which end; `both` ranks by magnitude.
    """

    def __init__(self, n_rows: int, k: int, sign: AnySign) -> None:
        self._k, self._sign = k, sign
        nothing = torch.empty(n_rows, 0)
        self.kept = Entries(nothing, nothing, nothing.long())

    def add(self, values: Float[Tensor, "row _entry"], raw: Float[Tensor, "row _entry"], where: Where) -> None:
        """See more entries of every row.

        Args:
            values: Finite numbers by which they rank.
            raw: Their raw attributions.
            where: Gives the positions of some entries by their places in the row.
        """
        best, places = top_k(values, self._k, self._sign, lambda _, places: where(places[None])[0])
        seen = Entries(best, raw.gather(1, places), where(places))
        both = Entries(*(torch.cat(pair, 1) for pair in zip(self.kept, seen, strict=True)))
        best, order = top_k(both.values, self._k, self._sign, lambda row, places: both.positions[row, places])
        self.kept = Entries(best, both.raw.gather(1, order), both.positions.gather(1, order))

    def would_take(self, values: Float[Tensor, "row _entry"]) -> Bool[Tensor, " row"]:
        """Which of some candidates for the first row, given in rows of their own, hold one that would be kept."""
        if self.kept.values.shape[1] < self._k:
            return torch.ones(len(values), dtype=torch.bool)
        worst = self.kept.values[0, -1]
        if self._sign == "negative":
            best = values.amin(1)
            return (best <= worst) & (best < 0)
        best, worst = (values.amax(1), worst) if self._sign == "positive" else (values.abs().amax(1), worst.abs())
        return (best >= worst) & (best > 0)  # of equal ones, a later one may have the lower position

    def has_sign(self) -> Bool[Tensor, "row _best"]:
        """Which of the entries that are kept have the sign."""
        return has_sign(self.kept.values, self._sign)
