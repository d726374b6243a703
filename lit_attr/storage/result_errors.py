"""Which standard errors a result has, nested as in its file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lit_attr.files.archive import blank
from lit_attr.storage.standard_errors import Kind, StandardErrors
from lit_attr.storage.summed import SummedEdges, map_nested
from lit_attr.storage.summed_errors import SummedErrors, SummedVectors, Weights
from lit_attr.topology.address import EMBED
from lit_attr.topology.squares import N_BLOCKS, Squares
from lit_attr.topology.sums import Sums
from lit_attr.topology.tables import Table


def summed_errors(
    parts: Mapping[str, Sums], normalising: Sequence[str], tensors: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The standard errors of a result, nested as in `StandardErrors`; None where no squares were kept.

    Args:
        parts: Sums by name.
        normalising: Names of the parts whose normalisers count.
        tensors: The sums of the result, as `summed_tensors` gives them.
    """
    squared = {name: sums.squares for name, sums in parts.items() if sums.squares is not None}
    if len(squared) < len(parts):
        return None
    counted = [(parts[name], squared[name]) for name in normalising]
    kinds: list[Kind] = ["attr", "attr_abs"] if tensors["regular_attr_abs"] or tensors["embed_attr_abs"] else ["attr"]
    weights = {kind: _weights(counted, kind) for kind in kinds}
    n_all: dict[Kind, int] = {
        "attr": sum(int(squares.n_groups) for _, squares in counted),
        "attr_abs": sum(int(squares.n_abs_groups) for _, squares in counted),
    }
    d_model, vocab = tensors["embed_unembed_attr"].targets.n_all, tensors["embed_unembed_attr"].sources.n_all
    with_blocks = {name: squares for name, squares in squared.items() if squares.blocks}

    def errors(source: str, target: str, edges: SummedEdges, kind: Kind) -> SummedErrors:
        ids = edges.targets.all_indices
        tables, columns = dict[str, Table](), dict[str, Tensor]()
        for name, squares in squared.items():
            layout = parts[name].layout
            of_part = (layout.squares if kind == "attr" else layout.targets).get(target, ids[:0])
            if len(of_part):
                tables[name] = (squares.attr if kind == "attr" else squares.attr_abs)[target][source]
                columns[name] = torch.searchsorted(ids, of_part)
        squared_edges = replace(edges, parts=tables, columns=columns, vectors=None, factor=1.0, dtype=torch.float64)
        return SummedErrors(**vars(squared_edges), edges=edges, weights=weights[kind][source], n_groups=n_all[kind])

    def vectors(source: str, edges: SummedEdges) -> SummedVectors:
        tables = {name: squares.blocks[source] for name, squares in with_blocks.items() if source in squares.blocks}
        of_parts = [with_blocks[name].block_weight[source] for name in tables]
        n_components = vocab if source == EMBED else edges.sources.n_all
        by_block = sum(of_parts, torch.zeros(n_components, N_BLOCKS, dtype=torch.float64))
        return SummedVectors(tables, by_block, edges.sources, d_model, edges.is_dense)

    def regular(name: str, kind: Kind) -> dict[str, dict[str, SummedErrors]]:
        return {t: {s: errors(s, t, e, kind) for s, e in by_source.items()} for t, by_source in tensors[name].items()}

    def embed(name: str, kind: Kind) -> dict[str, SummedErrors]:
        return {target: errors(EMBED, target, edges, kind) for target, edges in tensors[name].items()}

    into_output = {source: vectors(source, edges) for source, edges in tensors["unembed_attr"].items()}
    of_tokens = vectors(EMBED, tensors["embed_unembed_attr"])
    of_output = {source: one.weights for source, one in {**into_output, EMBED: of_tokens}.items()}
    return {
        "regular_attr": regular("regular_attr", "attr"),
        "regular_attr_abs": regular("regular_attr_abs", "attr_abs"),
        "embed_attr": embed("embed_attr", "attr"),
        "embed_attr_abs": embed("embed_attr_abs", "attr_abs"),
        "unembed_attr": into_output,
        "embed_unembed_attr": of_tokens,
        "n_groups": {
            kind: {source: one.n_groups.float() for source, one in by_layer.items()}
            for kind, by_layer in {**weights, "output": of_output}.items()
        },
        "n_all_groups": {**{kind: n_all[kind] for kind in kinds}, "output": N_BLOCKS},
    }


def blank_errors(summed: Mapping[str, Any]) -> StandardErrors:
    """Standard errors without numbers, but for numbers of groups: to be laid out in a file.

    Args:
        summed: What `summed_errors` gives.
    """
    return _of_shapes(summed, partial(blank, dtype=torch.bfloat16))


def errors_without_numbers(summed: Mapping[str, Any]) -> StandardErrors:
    """Standard errors on the meta device, but for numbers of groups; argument as above."""
    return _of_shapes(summed, partial(torch.empty, dtype=torch.bfloat16, device="meta"))


def _of_shapes(summed: Mapping[str, Any], empty: Callable[[torch.Size], Tensor]) -> StandardErrors:
    def without_numbers(value: Any) -> Any:  # noqa: ANN401 - what is summed, a tensor or a number
        return empty(value.shape) if isinstance(value, SummedErrors | SummedVectors) else value

    return StandardErrors(**map_nested(summed, without_numbers))


def _weights(counted: Sequence[tuple[Sums, Squares]], kind: Kind) -> dict[str, Weights]:
    """Source layer to what its sources weigh in the data."""

    def of_part(source: str, sums: Sums, squares: Squares) -> tuple[Tensor, Tensor]:
        if kind == "attr_abs":
            return squares.abs_weight[source], squares.abs_weight_sq[source]
        return sums.token_count.double() if source == EMBED else sums.ci[source], squares.weight_sq[source]

    def total(source: str) -> Weights:
        pairs = [of_part(source, sums, squares) for sums, squares in counted]
        return Weights(*(torch.stack(tensors).sum(0) for tensors in zip(*pairs, strict=True)))

    return {source: total(source) for source in counted[0][1].weight_sq}
