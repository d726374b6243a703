"""The two forms of a result, and the way from one to the other.

Nothing is lost: the compact form leaves out edges from what never occurred in the data, which are zero, and rows of
components that were no targets of the harvest, which say nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_attr.storage.file_content import Content
from lit_attr.storage.harvested_targets import HarvestedTargets
from lit_attr.storage.live import Live, members
from lit_attr.storage.standard_errors import StandardErrors
from lit_attr.topology.address import EMBED
from lit_attr.topology.live import LiveSet

AnyContent = TypeVar("AnyContent", bound=Content)
# Numbers that are looked at, or moved, at once.
_PIECE = 1 << 22


@dataclass(frozen=True, eq=False)
class Moved:
    """A tensor of edges, moved to other places.

    Attributes:
        block: The tensor as it is.
        rows: What has a row in it, targets as a rule, and what gets one; None where rows stay as they are.
        columns: What has a column in it, sources as a rule, and what gets one; None likewise.
    """

    block: Float[Tensor, "_row _column"]
    rows: tuple[LiveSet, LiveSet] | None
    columns: tuple[LiveSet, LiveSet] | None

    @property
    def shape(self) -> torch.Size:
        """Shape of the moved tensor."""
        axes = zip(self.block.shape, (self.rows, self.columns), strict=True)
        return torch.Size([length if sets is None else len(sets[1]) for length, sets in axes])

    @cached_property
    def _places(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The places of the rows, and of the columns, that stay: where they were, and where they come to be."""
        rows, columns = (
            (torch.arange(length),) * 2 if sets is None else _shared(*sets)
            for length, sets in zip(self.block.shape, (self.rows, self.columns), strict=True)
        )
        return rows, columns

    def part(self, start: int, stop: int) -> Float[Tensor, "_row _column"]:
        """Some rows of the moved tensor."""
        (row_from, row_to), (column_from, column_to) = self._places
        in_part = slice(*torch.searchsorted(row_to, torch.tensor([start, stop])).tolist())
        moved = self.block.new_zeros(stop - start, self.shape[1])
        moved[row_to[in_part, None] - start, column_to] = self.block[row_from[in_part, None], column_from]
        return moved

    def parts(self) -> Iterator[tuple[int, Float[Tensor, "_row _column"]]]:
        """The moved tensor in pieces of some rows, and where each begins."""
        n_rows, n_columns = self.shape
        for start in range(0, n_rows, step := max(_PIECE // max(n_columns, 1), 1)):
            yield start, self.part(start, min(start + step, n_rows))

    @property
    def whole(self) -> Float[Tensor, "_row _column"]:
        """The moved tensor."""
        return self.part(0, self.shape[0])


def _shared(has: LiveSet, gets: LiveSet) -> tuple[Int[Tensor, " both"], Int[Tensor, " both"]]:
    """The places in one set, and in another, of what is in both."""
    if has.ids is None or gets.ids is None:
        ids = gets.all_indices if has.ids is None else has.all_indices
        own = torch.arange(len(ids))
        return (ids, own) if has.ids is None else (own, ids)
    is_in_both = torch.isin(has.ids, gets.ids)
    return is_in_both.nonzero()[:, 0], torch.searchsorted(gets.ids, has.ids[is_in_both])


def live_of(content: Content) -> Live:
    """What has a place in the compact form of a result.

    These are the sources that occur in the data, and the targets of the harvest; and others only where an edge of
    theirs is not zero all the same, as in damaged files.

    Raises:
        StorageError: If the provenance lists the targets of the harvest otherwise than `lit_attr` does.
    """
    if content.live is not None:
        return content.live
    harvested = HarvestedTargets(content)
    sources, targets = dict[str, Tensor](), dict[str, Tensor]()
    for target, source, block in _edges(content):
        if source not in sources:
            sources[source] = (content.embed_token_count if source == EMBED else content.ci_sum[source]) != 0
        _keep(sources[source], block.T)
        if target is not None:
            if target not in targets:
                targets[target] = torch.ones(content.layer_size(target), dtype=torch.bool)
                targets[target][harvested.missing(target)] = False
            _keep(targets[target], block)
    return Live(*({layer: mask.nonzero()[:, 0] for layer, mask in side.items()} for side in (sources, targets)))


def _edges(content: Content) -> Iterator[tuple[str | None, str, Tensor]]:
    """All tensors of edges with the layers of their rows, where these are targets, and columns."""
    for nested in (content.regular_attr, content.regular_attr_abs):
        yield from (
            (target, source, block) for target, by_source in nested.items() for source, block in by_source.items()
        )
    for by_target in (content.embed_attr, content.embed_attr_abs):
        yield from ((target, EMBED, block) for target, block in by_target.items())
    yield from ((None, source, block) for source, block in content.unembed_attr.items())
    yield None, EMBED, content.embed_unembed_attr


def _keep(has_place: Bool[Tensor, " row"], block: Float[Tensor, "row _column"]) -> None:
    """Give a place to the rows that have none and are not zero."""
    for rows in (~has_place).nonzero()[:, 0].split(max(_PIECE // max(block.shape[1], 1), 1)):
        has_place[rows] = (block[rows] != 0).any(1)


def moved_edges(content: Content, live: Live | None) -> dict[str, Any]:
    """All tensors of edges, nested as in `Content`, on their way to other places.

    Args:
        content: A result.
        live: The sources and targets that get a place; None for all, as in the dense form.
    """

    def moved(target: str | None, source: str, block: Tensor) -> Moved:
        n_sources = content.layer_size(source)
        columns = content.stored_sources(source), members(live, "sources", source, n_sources)
        if target is None:
            return Moved(block, None, columns)
        rows = content.stored_targets(target), members(live, "targets", target, content.layer_size(target))
        return Moved(block, rows, columns)

    def into_components(of: Content | StandardErrors) -> dict[str, Any]:
        return {
            **{
                name: {t: {s: moved(t, s, block) for s, block in by_source.items()} for t, by_source in nested.items()}
                for name, nested in (("regular_attr", of.regular_attr), ("regular_attr_abs", of.regular_attr_abs))
            },
            **{
                name: {target: moved(target, EMBED, block) for target, block in by_target.items()}
                for name, by_target in (("embed_attr", of.embed_attr), ("embed_attr_abs", of.embed_attr_abs))
            },
        }

    def vectors(source: str, block: Tensor) -> Moved:
        """Vectors of standard errors, which have a row for each source."""
        return Moved(block, moved(None, source, block).columns, None)

    edges = {
        **into_components(content),
        "unembed_attr": {source: moved(None, source, block) for source, block in content.unembed_attr.items()},
        "embed_unembed_attr": moved(None, EMBED, content.embed_unembed_attr),
    }
    if (errors := content.standard_errors) is None:
        return edges
    of_errors = {
        **into_components(errors),
        "unembed_attr": {source: vectors(source, block) for source, block in errors.unembed_attr.items()},
        "embed_unembed_attr": vectors(EMBED, errors.embed_unembed_attr),
    }
    return {**edges, "standard_errors": of_errors}


def exchanged(content: AnyContent, edges: Mapping[str, Any], live: Live | None) -> AnyContent:
    """A result with other tensors of edges.

    Args:
        content: A result.
        edges: The others, nested as `moved_edges` gives them.
        live: The sources and targets that have a place in them.
    """
    errors = content.standard_errors
    others = {**edges, "standard_errors": errors and replace(errors, **edges["standard_errors"])}
    return replace(content, **others, live=live)


def with_live(content: AnyContent, live: Live | None) -> AnyContent:
    """A result with other places in its tensors of edges, in memory.

    Args:
        content: A result.
        live: The sources and targets that get a place, at least those with an edge that is not zero; None for all.
    """
    if content.live is live:
        return content
    edges = {name: map_moved(nested, lambda moved: moved.whole) for name, nested in moved_edges(content, live).items()}
    return exchanged(content, edges, live)


def map_moved(nested: Any, function: Callable[[Moved], Any]) -> Any:  # noqa: ANN401 - a moved tensor, or a mapping
    """Another mapping of the same nesting."""
    if isinstance(nested, Moved):
        return function(nested)
    return {key: map_moved(value, function) for key, value in nested.items()}


def with_zeros(
    content: Content, source: str, target: str, block: Float[Tensor, "_row _column"], zero: float = 0.0
) -> Float[Tensor, "_target _source"]:
    """A block of stored edges between two layers, with rows and columns for what has no place.

    Args:
        content: A result.
        source: Layer of the columns.
        target: Layer of the rows.
        block: Numbers of the stored edges.
        zero: What stands for the others.
    """
    sources, targets = content.stored_sources(source), content.stored_targets(target)
    whole = block.new_full((targets.n_all, sources.n_all), zero)
    whole[targets.all_indices[:, None], sources.all_indices] = block
    return whole


def compacted(content: AnyContent) -> AnyContent:
    """The compact form of a result, in memory.

    Raises:
        StorageError: If the provenance lists the targets of the harvest otherwise than `lit_attr` does.
    """
    return with_live(content, live_of(content))


def dense(content: AnyContent) -> AnyContent:
    """The dense form of a result, in memory."""
    return with_live(content, None)
