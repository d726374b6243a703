"""Dealing the sums of a harvest out over target shards, each of which computes and keeps its own."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise

from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.topology.address import EMBED
from lit_attr.topology.layout import Layout


def deal(layout: Layout, n_shards: int) -> list[Layout]:
    """Deal sums out over shards: disjoint, together all of them, and the same for every process that asks.

    The load of a sum is its numbers. The inputs are cut into stretches, in the order of a forward pass, so that the
    heaviest is as light as can be; neighbours have most of their sources in common. Then the targets are cut likewise,
    within a layer where that is needed, so that all shards carry the same. Those of each kind of matrix are cut by
    themselves: a number of one kind costs about the same time in all layers, but not that of another (what passes
    through an attention or an MLP costs most), so that shards are even in bytes and in time.

    Args:
        layout: The sums of the whole harvest.
        n_shards: How many shards; each gets something.

    Raises:
        ConfigurationError: If there is not enough for so many.
    """
    if n_shards == 1:
        return [layout]
    topology = layout.topology
    n_rows = {**topology.n_components, EMBED: topology.vocab_size}
    n_sources = {target: sum(n_rows[source] for source in sources) for target, sources in topology.sources.items()}
    of_inputs = [n_sources[topology.readers[name][0]] * topology.widths[name] for name in layout.inputs]
    stretches = list(pairwise([0, *_cuts(of_inputs, n_shards)]))
    loads = [sum(of_inputs[first:last]) for first, last in stretches]
    of_targets = {layer: n_sources[layer] * len(ids) for layer, ids in layout.targets.items()}
    of_kinds = Counter[str]()
    for layer, load in of_targets.items():
        of_kinds[_kind(layer)] += load
    rooms = _room(loads, sum(of_targets.values()))
    ends = [end / max(sum(rooms), 1) for end in accumulate(rooms)]
    shards: list[Layout] = []
    for (first, last), (begin, end) in zip(stretches, pairwise([Fraction(0), *ends]), strict=True):
        targets, before = dict[str, Tensor](), Counter[str]()
        for layer, ids in layout.targets.items():
            kind, of_column = _kind(layer), n_sources[layer]
            start, stop = (_n_columns(cut * of_kinds[kind] - before[kind], of_column, len(ids)) for cut in (begin, end))
            targets[layer] = ids[start:stop]
            before[kind] += of_targets[layer]
        shards.append(layout.part(layout.inputs[first:last], targets))
    if any(not shard.inputs and not any(map(len, shard.targets.values())) for shard in shards):
        n_targets = sum(map(len, layout.targets.values()))
        raise ConfigurationError(
            f"data.target_shards is {n_shards}, too many for the {len(layout.inputs)} inputs (attr) and {n_targets} "
            "targets (attr_abs) that are dealt out: a shard would have none. Use fewer"
        )
    return shards


def _kind(layer: str) -> str:
    """The matrix that a layer is of its block, such as `mlp.down`."""
    return layer.partition(".")[2]


def _cuts(loads: Sequence[int], n: int) -> list[int]:
    """Where `n` stretches of a list end, so that the heaviest is as light as can be; none is empty without need."""
    least, most = max(loads, default=0), sum(loads)
    while least < most:
        limit = (least + most) // 2
        least, most = (least, limit) if _fits(loads, n, limit) else (limit + 1, most)
    ends: list[int] = []
    held = 0
    for place, load in enumerate(loads):
        must_end = len(loads) - place <= n - 1 - len(ends)  # one for each stretch that is left
        if place and len(ends) < n - 1 and (held + load > least or must_end):
            ends.append(place)
            held = 0
        held += load
    return [*ends, *[len(loads)] * (n - len(ends))]


def _fits(loads: Sequence[int], n: int, limit: int) -> bool:
    """Whether `n` stretches of a list hold all of it, none of them more than a limit."""
    ends, before = list(accumulate(loads)), 0
    for _ in range(n):
        place = bisect_right(ends, before + limit)
        before = ends[place - 1] if place else 0
    return before == (ends[-1] if ends else 0)


def _room(loads: Sequence[int], more: int) -> list[Fraction]:
    """How much of a further load each shard takes, so that all carry the same as far as that is possible."""
    rising = sorted(loads)
    level = min(Fraction(more + sum(rising[:n]), n) for n in range(1, len(rising) + 1))
    return [max(level - load, Fraction(0)) for load in loads]


def _n_columns(load: Fraction, of_column: int, n: int) -> int:
    """How many of a layer's columns lie before a cut: whole ones."""
    return min(max(round(load / of_column), 0), n) if of_column else 0
