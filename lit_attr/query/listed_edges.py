"""Tables of the strongest edges, as in `strongest_edges`, of a result that holds nothing else."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from lit_attr.errors import NotHeldError
from lit_attr.query.index import IndexedList
from lit_attr.query.index_lists import KeyLists, all_lists
from lit_attr.query.layer_pairs import layer_pairs
from lit_attr.query.strongest_edges import Edges, fed_layers
from lit_attr.query.strongest_lists import StrongestLists
from lit_attr.query.tiles import parts
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.normalisation import divided
from lit_attr.topology.choice import Measure
from lit_attr.topology.positions import Positions
from lit_attr.topology.words import SIGNS, AttrMetric

# Targets whose edges are yielded together.
_N_TARGETS = 4096


class ListedEdges:
    """Tables of the strongest edges, from the lists of a result that holds nothing else.

    Args:
        blocks: Blocks of the result.
        lists: Its lists.
    """

    def __init__(self, blocks: Blocks, lists: StrongestLists) -> None:
        self._blocks, self._lists = blocks, lists

    def of_pairs(self, metric: AttrMetric, k: int) -> Iterator[Edges]:
        """The tables of `strongest_of_pairs`.

        Args:
            metric: `attr` or `attr_abs`.
            k: How many edges of a pair at most.

        Raises:
            NotHeldError: If a pair has more edges than are held.
        """
        for source, target in layer_pairs(self._blocks, metric):
            edges = _EdgesInto(self._blocks, target, [source])
            for sign in SIGNS:
                known = self._lists.edges(
                    (source, target), Measure(metric), sign, self._blocks.n_stored(source, target)
                )
                edges.see(known, *np.divmod(known.positions, max(len(edges.sources), 1))[::-1])
            edges.keep(k, f"from {source} to {target}")
            yield edges.table()

    def of_targets(self, metric: AttrMetric, k: int) -> Iterator[Edges]:
        """The tables of `strongest_of_targets`; arguments and errors as for `of_pairs`."""
        by_target: dict[str, list[KeyLists]] = {}
        for lists in all_lists(self._blocks):
            if lists.edges.direction == "sources" and metric in lists.metrics:
                by_target.setdefault(lists.edges.layer, []).append(lists)
        for target in fed_layers(self._blocks):
            kinds = by_target.get(target, [])
            for keys in parts(len(self._blocks.content.stored_targets(target)), _N_TARGETS):
                edges = _EdgesInto(
                    self._blocks, target, [one for lists in kinds for one in lists.edges.neighbours.layers]
                )
                for key in range(keys.start, keys.stop):
                    first = 0
                    for lists in kinds:
                        for sign in SIGNS:
                            known = self._lists.neighbours(lists, key, Measure(metric), sign)
                            edges.see(known, first + known.positions, np.full(len(known.positions), key))
                        first += len(lists.edges.neighbours)
                    edges.keep(k, f"into each of {target}")
                yield edges.table()


class _EdgesInto:
    """Edges into one layer, of which the strongest are kept, list by list.

    Args:
        blocks: Blocks of the result.
        target: The layer.
        sources: Layers of sources.
    """

    def __init__(self, blocks: Blocks, target: str, sources: Sequence[str]) -> None:
        content, scales = blocks.content, blocks.normalisation
        self.sources = Positions.of((source, content.stored_sources(source)) for source in sources)
        self._targets = content.stored_targets(target)
        by_source = [
            scales.of_sources(name)[members.all_indices]
            for name, members in zip(sources, self.sources.members, strict=True)
        ]
        self._by_source = torch.cat([torch.empty(0), *by_source]).numpy()
        self._target, self._by_target = target, scales.of_targets(target)[self._targets.all_indices].numpy()
        self._seen: list[tuple[np.ndarray, ...]] = []
        self._kept: list[tuple[np.ndarray, ...]] = []
        self._bound = 0.0

    def see(self, known: IndexedList, sources: Int[np.ndarray, " edge"], targets: Int[np.ndarray, " edge"]) -> None:
        """Add a list, of sources by their positions and targets by their places."""
        values: Float[np.ndarray, " edge"] = divided(known.raw, self._by_source[sources], self._by_target[targets])
        errors = np.full(len(values), np.nan, np.float32) if known.errors is None else known.errors
        self._seen.append((sources, targets, errors, known.raw, values))
        if not known.complete:
            self._bound = max(self._bound, float(abs(values[-1])))

    def keep(self, k: int, which: str) -> None:
        """Keep the `k` strongest of the lists that were seen since the last time.

        Raises:
            NotHeldError: If these are not known.
        """
        columns = [np.concatenate(parts) for parts in zip(*self._seen, strict=True)] if self._seen else []
        if columns:
            magnitudes = abs(columns[-1])
            best = np.argsort(-magnitudes, kind="stable")[:k]
            if self._bound and (len(best) < k or magnitudes[best[-1]] < self._bound):
                raise NotHeldError(
                    f"the {k} strongest edges {which} are not held: this result keeps fewer, and nothing else; ask for "
                    "fewer, or take the result that it was made from"
                )
            self._kept.append(tuple(column[best] for column in columns))
        self._seen, self._bound = [], 0.0

    def table(self) -> Edges:
        """All edges that were kept."""
        columns = (
            [np.concatenate(parts) for parts in zip(*self._kept, strict=True)] if self._kept else [np.empty(0)] * 5
        )
        positions, places = (column.astype(np.int64) for column in columns[:2])
        numbers, indices = self.sources.locate(positions)
        targets = self._targets.indices(torch.from_numpy(places)).numpy()
        raw, normalized = columns[3:]
        return Edges(self.sources.layers, numbers, indices, self._target, targets, raw, normalized, columns[2])
