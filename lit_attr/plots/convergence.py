"""How standard errors shrink while a harvest goes on: those of the first parts of it, of more of them, and of all."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.parts.looks import read_looks
from lit_attr.plots.harvest_parts import HarvestParts
from lit_attr.query.strongest_edges import Edges, strongest_of_pairs
from lit_attr.storage.edge_errors import EdgeErrors
from lit_attr.storage.standard_errors import WHY_NO_ERRORS
from lit_attr.storage.summed_blocks import SummedBlocks
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import Measure, check_count

_MEASURE = Measure("attr")
# Of a curve: all parts before it are read for each.
_MOST_POINTS = 12
LOOKS = "10 strongest sources of targets"


@dataclass(frozen=True)
class Convergence:
    """The median of standard error over final value, against tokens.

    Attributes:
        curves: Kind of edges, such as `component to token`, to tokens and medians. Where a harvest may end early, what
            was found when it was looked at is a curve of its own, `LOOKS`.
        k: How many edges of each two layers the medians are of.
    """

    curves: dict[str, tuple[Sequence[float], Sequence[float]]]
    k: int


def convergence(folder: Path, k: int = 100) -> Convergence:
    """Follow the strongest edges between every two layers through the parts of a harvest.

    An edge without an interval, since its source occurs in too few groups of batches, counts as soon as it has one; a
    median is that of all edges, and is known once half of them have one.

    Args:
        folder: The harvest's folder.
        k: How many edges of each two layers, by normalised magnitude in the metric `attr`.

    Raises:
        ConfigurationError: If the harvest has fewer than two parts and was not looked at twice, has no standard errors,
            or `k` is not positive.
        StorageError: If a part is damaged, foreign or counted twice, or the harvest has not begun.
    """
    check_count("k", k)
    harvest = HarvestParts.of(folder)
    n_tokens, n_batches = harvest.n_tokens, harvest.n_batches
    curves: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    if len(harvest.parts) > 1:
        numbers = _numbers(len(harvest.parts))
        after = [n_tokens[n - 1] for n in numbers]
        curves |= {kind: (after, medians) for kind, medians in _medians(harvest, numbers, k).items()}
    looks = [look for look in read_looks(folder) if look.relative_error is not None]
    if len(looks) > 1:
        of_one = n_tokens[-1] / n_batches[-1]
        curves[LOOKS] = [look.n_batches * of_one for look in looks], [look.relative_error or 0.0 for look in looks]
    if not curves:
        raise ConfigurationError(
            f"{folder}: convergence needs at least 2 committed parts, found {len(harvest.parts)}; harvest with several "
            "workers (--data.rank and --data.world_size, or lit-attr submit --n_gpus), extend a harvest with more "
            "batches, or let it end once it is settled (--model.stop_when settled)"
        )
    return Convergence(curves, k)


def _numbers(n_parts: int) -> list[int]:
    """After how many parts errors are looked at: after each, or, of many, at even distances of a logarithmic axis."""
    if n_parts <= _MOST_POINTS:
        return list(range(1, n_parts + 1))
    return np.unique(np.geomspace(1, n_parts, _MOST_POINTS).round().astype(int)).tolist()


def _medians(harvest: HarvestParts, numbers: Sequence[int], k: int) -> dict[str, list[float]]:
    """Kind of edges to the medians after so many parts."""
    after = [_blocks(harvest, n) for n in numbers]
    relative: dict[str, list[list[np.ndarray]]] = defaultdict(lambda: [[] for _ in after])
    for edges in strongest_of_pairs(after[-1], "attr", k):
        source = edges.source_layers[0]
        ends = (source == EMBED, edges.target_layer == OUTPUT)
        kind = " to ".join("token" if is_token else "component" for is_token in ends)
        for place, blocks in enumerate(after):
            relative[kind][place].append(_relative_errors(blocks, source, edges))
    return {kind: [_median(np.concatenate(some)) for some in by_part] for kind, by_part in relative.items()}


def _blocks(harvest: HarvestParts, n_parts: int) -> SummedBlocks:
    """What a result of the first parts would answer."""
    parts = {part.path.name: part.sums for part in harvest.parts[:n_parts]}
    header = harvest.header
    blocks = SummedBlocks(parts, harvest.read, header.w_unembed, header.ci_threshold, {})
    if blocks.content.standard_errors is None:
        raise ConfigurationError(f"convergence needs standard errors, and {WHY_NO_ERRORS}")
    return blocks


def _relative_errors(blocks: SummedBlocks, source: str, edges: Edges) -> Float[np.ndarray, " edge"]:
    """Standard errors over final values; infinite for edges that have none yet."""
    errors = EdgeErrors.of(blocks)
    found = np.full(len(edges.sources), np.inf)
    sources = _places(blocks.content.stored_sources(source).all_indices, edges.sources)
    targets = _places(blocks.content.stored_targets(edges.target_layer).all_indices, edges.targets)
    there = (sources >= 0) & (targets >= 0)
    if errors is None or not there.any():
        return found
    values = torch.from_numpy(edges.normalized)[there]
    ends = sources[there], targets[there]
    of_some = errors.of_edges(source, edges.target_layer, _MEASURE, *ends, values)
    found[there.numpy()] = (of_some.double() / values.double().abs()).nan_to_num(nan=torch.inf).numpy()
    return found


def _places(stored: Int[Tensor, " place"], indices: Int[np.ndarray, " edge"]) -> Int[Tensor, " edge"]:
    """The places of components, or token ids; -1 for those that have none."""
    wanted = torch.from_numpy(indices)
    places = torch.searchsorted(stored, wanted).clamp(max=max(len(stored) - 1, 0))
    return torch.where(stored[places] == wanted, places, -1) if len(stored) else torch.full_like(wanted, -1)


def _median(numbers: Float[np.ndarray, " edge"]) -> float:
    """Not a number where it is that of an edge which has no standard error."""
    if not len(numbers):
        return np.nan
    median = float(np.median(numbers))
    return median if np.isfinite(median) else np.nan
