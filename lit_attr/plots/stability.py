"""How fast the strongest sources settle: the top-k of some batches against that of all, part of a harvest by part."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.parts.header import Header
from lit_attr.plots.harvest_parts import HarvestParts
from lit_attr.query.strongest_edges import strongest_of_targets
from lit_attr.storage.best import has_sign, top_k
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.address import EMBED, ComponentKey
from lit_attr.topology.choice import check_count
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums
from lit_attr.topology.tables import Table

_LEAST = 1e-10  # what sources are divided by; those that never occurred have no attributions


@dataclass(frozen=True)
class Stability:
    """How the strongest sources of some targets settle.

    Attributes:
        targets: The targets.
        k: How many sources of each are compared.
        n_batches: After each part, from the first on.
        n_tokens: Tokens after each part.
        overlap: Jaccard index of the `k` strongest sources so far and in the end; the last ones are 1.
        n_planned: Batches of the whole harvest.
    """

    targets: Sequence[ComponentKey]
    k: int
    n_batches: Sequence[int]
    n_tokens: Sequence[int]
    overlap: Float[Tensor, "_part _target"]
    n_planned: int


def stability(folder: Path, k: int = 10, n_targets: int = 20) -> Stability:
    """Compare the strongest sources after every committed part of a harvest with those after all.

    Sources rank by normalised magnitude, in the metric `attr`. The targets are components: those with the strongest
    edges in the largest part, one pass over which finds them. Where targets are dealt out, they are of the target shard
    with the most parts.

    Args:
        folder: The harvest's folder.
        k: How many sources of each target.
        n_targets: How many targets at most.

    Raises:
        ConfigurationError: If the harvest has fewer than two parts, or a number is not positive.
        StorageError: If a part is damaged, foreign or counted twice, or the harvest has not begun.
    """
    check_count("k", k)
    check_count("n_targets", n_targets)
    harvest = HarvestParts.of(folder)
    if len(harvest.parts) < 2:
        raise ConfigurationError(
            f"{folder}: stability needs at least 2 committed parts, found {len(harvest.parts)}; harvest with several "
            "workers (--data.rank and --data.world_size, or lit-attr submit --n_gpus), or extend a harvest with more "
            "batches"
        )
    read, sums = harvest.read, [part.sums for part in harvest.parts]
    largest = max(sums, key=lambda part: int(part.n_tokens))
    targets = _strongest_targets(largest, read, harvest.header, n_targets)
    return Stability(
        targets,
        k,
        harvest.n_batches,
        harvest.n_tokens,
        torch.tensor([_overlaps(_tops(sums, read, target, k)) for target in targets]).T,
        harvest.n_planned,
    )


def _strongest_targets(sums: Sums, read: ReadVectors, header: Header, n_targets: int) -> list[ComponentKey]:
    blocks = Blocks(DatasetAttributionStorage.from_sums(sums.signed(), read, header.w_unembed, header.ci_threshold))
    layers = [layer for layer in blocks.content.ci_sum if blocks.source_layers(layer, "attr")]
    strongest: list[tuple[float, ComponentKey]] = []
    for edges in strongest_of_targets(blocks, "attr", 1, layers):
        for index, value in zip(edges.targets.tolist(), abs(edges.normalized).tolist(), strict=True):
            strongest.append((value, ComponentKey(edges.target_layer, index)))
    if not strongest:
        raise ConfigurationError("no component has an edge into it that is not zero: there is nothing to compare")
    return [key for _, key in nlargest(n_targets, strongest, key=itemgetter(0))]


def _tops(parts: Sequence[Sums], read: ReadVectors, target: ComponentKey, k: int) -> list[set[int]]:
    """The strongest sources after each part, as positions; the target's own scale does not change their order."""
    vector = read.vectors[target.layer][:, target.index].to(torch.float64)
    raw = scale = torch.zeros((), dtype=torch.float64)
    tops = []
    for part in parts:
        by_source = part.attr[read.inputs[target.layer]]
        raw = raw + torch.cat([_by_source(table, table.numbers @ vector) for table in by_source.values()])
        scales = [part.token_count if source == EMBED else part.ci[source] for source in by_source]
        scale = scale + torch.cat(scales).double()
        best, places = top_k(raw / scale.clamp(min=_LEAST), k, "both")
        tops.append(set(places[has_sign(best, "both")].tolist()))
    return tops


def _by_source(table: Table, values: Float[Tensor, " row"]) -> Float[Tensor, " source"]:
    """A value for each source of a layer; zero for those that have no row."""
    every = values.new_zeros(table.live.n_all)
    every[torch.from_numpy(table.live.ids)] = values
    return every


def _overlaps(tops: Sequence[set[int]]) -> list[float]:
    """Jaccard index of each set and the last."""
    return [len(top & tops[-1]) / max(len(top | tops[-1]), 1) for top in tops]
