"""Ranking edges by how sure they are: all edges of a key, or between two layers, are looked at, without an index."""

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.query.tiles import LayerEdges, parts, tiles
from lit_attr.storage.best import has_sign, top_k
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.edge_errors import EdgeErrors
from lit_attr.storage.interval import nearer_end, z_scores
from lit_attr.storage.key_edges import KeyEdges
from lit_attr.storage.standard_errors import WHY_NO_ERRORS
from lit_attr.storage.top_k import DatasetAttributionEntry, Entries, RunningTopK, Segment, check_finite
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import Measure, Selection
from lit_attr.topology.positions import Positions
from lit_attr.topology.words import Direction

# Sources and targets of a tile: values, standard errors and scores have 4 MB each.
_SIDE = 1024


def surest_neighbours(
    key_edges: KeyEdges, direction: Direction, key: ComponentKey, measure: Measure, selection: Selection
) -> list[DatasetAttributionEntry]:
    """Sources or targets of a key in the order that a selection asks for; those that score 0 are left out.

    Args:
        key_edges: Edges of the result's keys.
        direction: Whether sources or targets are ranked.
        key: A key that has some.
        measure: Which numbers.
        selection: How many, of which sign, in which layers, by what.

    Raises:
        ConfigurationError: If the result has no standard errors.
        NotHeldError: If it holds its strongest edges alone.
        StorageError: If values are not finite.
    """
    blocks, errors = key_edges.blocks, _errors(key_edges.blocks)
    ask = key_edges.sources if direction == "sources" else key_edges.targets
    find = blocks.source_layers if direction == "sources" else blocks.target_layers
    segments = ask(key, measure, [layer for layer in find(key.layer, measure.metric) if selection.admits(layer)])
    members = blocks.content.stored_targets if direction == "sources" else blocks.content.stored_sources
    place = members(key.layer).place(key.index)
    if place is None or not segments:
        return []
    one = slice(place, place + 1)

    def score(segment: Segment) -> Float[Tensor, " _member"]:
        check_finite(segment.values, f"{direction} of {key}")
        if direction == "sources":
            pair, places = (segment.layer, key.layer), (slice(None), one)
        else:
            pair, places = (key.layer, segment.layer), (one, slice(None))
        found = errors.tile(*pair, measure, *places).flatten()
        return _scores(segment.values, found, errors.n_groups(*pair, measure.metric, places[0]), selection)

    best, places = top_k(torch.cat([score(segment) for segment in segments]), selection.k, selection.sign)
    places = places[has_sign(best, selection.sign)]
    keys = Positions.of((layer, members) for layer, members, _ in segments).keys(places.numpy())
    values = torch.cat([segment.values for segment in segments])[places].tolist()
    return [DatasetAttributionEntry(str(k), k.layer, k.index, v) for k, v in zip(keys, values, strict=True)]


def surest_edges(blocks: Blocks, pair: tuple[str, str], measure: Measure, selection: Selection) -> Entries:
    """Edges between two layers in the order that a selection asks for, tile by tile; those that score 0 are left out.

    Args:
        blocks: Blocks of the result.
        pair: Source and target layer, between which there are edges.
        measure: Which numbers.
        selection: How many, of which sign, by what.

    Returns:
        One row: scores, raw values, and positions `target * n_sources + source`, of the places of both.

    Raises:
        ConfigurationError: If the result has no standard errors.
        NotHeldError: If it holds its strongest edges alone.
        StorageError: If values are not finite.
    """
    errors, edges = _errors(blocks), LayerEdges.between(blocks, "sources", pair[1], [pair[0]])
    top = RunningTopK(1, selection.k, selection.sign)
    for targets in parts(len(edges.keys), _SIDE):
        for tile in tiles(blocks, edges, measure.metric, targets, _SIDE):
            sources = tile.pieces[0].part
            found = errors.tile(*pair, measure, sources, targets)
            values = tile.normalized if measure.normalized else tile.raw
            scores = _scores(values, found, errors.n_groups(*pair, measure.metric, sources), selection)
            top.add(scores.reshape(1, -1), tile.raw.reshape(1, -1), tile.flat)
    mask = top.has_sign()
    return Entries(*(numbers[mask][None] for numbers in top.kept))


def _errors(blocks: Blocks) -> EdgeErrors:
    blocks.content.check_holds_edges()
    errors = EdgeErrors.of(blocks)
    if errors is None:
        raise ConfigurationError(f"--sort lower and --min_z need standard errors, and {WHY_NO_ERRORS}")
    return errors


def _scores(
    values: Float[Tensor, "*axes"],
    errors: Float[Tensor, "*axes"],
    n_groups: Float[Tensor, " _source"],
    selection: Selection,
) -> Float[Tensor, "*axes"]:
    """What edges rank by; 0 for those that are not wanted."""
    scores = nearer_end(values, errors, n_groups) if selection.sort == "lower" else values
    return scores.where(z_scores(values, errors) >= selection.min_z, 0.0) if selection.min_z else scores
