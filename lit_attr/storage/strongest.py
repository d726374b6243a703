"""The strongest of many attributions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import check_count
from lit_attr.topology.words import SIGNS, Sign

Segments = list[tuple[str, Float[Tensor, " _entry"]]]


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


def strongest(segments: Segments, k: int, sign: Sign) -> list[DatasetAttributionEntry]:
    """The entries with the largest positive, or the smallest negative, values; best first.

    Args:
        segments: Layers with a value for each of their entries.
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
    positive = sign == "positive"
    values = torch.cat([segment for _, segment in segments])
    if not values.isfinite().all():
        raise StorageError(NOT_FINITE)
    top = values.topk(min(k, len(values)), largest=positive)
    starts = torch.tensor([0, *(len(segment) for _, segment in segments)]).cumsum(0)
    entries = []
    for value, position in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        if not (value > 0 if positive else value < 0):
            break
        place = int(torch.searchsorted(starts, position, right=True)) - 1
        layer, index = segments[place][0], position - int(starts[place])
        entries.append(DatasetAttributionEntry(str(ComponentKey(layer, index)), layer, index, value))
    return entries
