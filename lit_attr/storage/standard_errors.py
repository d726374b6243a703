"""Standard errors as a result's file holds them, under the key `standard_errors`.

A standard error says how far a sum would come out elsewhere on other batches of the same kind, given how often its
source occurs; see `lit_attr.storage.summed_errors` for where it comes from. It is in the unit of the sum, so that both
are normalised alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.errors import shown as short
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.squares import N_BLOCKS
from lit_attr.topology.words import AttrMetric

# Of which edges groups are counted: those of a metric into components, or those into output tokens.
Kind = Literal["attr", "attr_abs", "output"]
_MOST_GROUPS = 1 << 53
WHY_NO_ERRORS = (
    "the result has no standard errors: it was harvested before there were any, merged from results, or with "
    "--model.uncertainty false"
)


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """Standard errors of sums; edges have the places that they have in `Content`.

    An edge into an output token is the product of the token's column of the unembedding with a sum in the residual
    stream. Its standard error is the length of the vector of products of that column with the source's vectors, one for
    each of `N_BLOCKS` blocks of the data.

    Attributes:
        regular_attr: Target layer to source layer to standard errors, bfloat16, nested as in `Content`.
        regular_attr_abs: Standard errors of `attr_abs`, likewise.
        embed_attr: Target layer to standard errors by token.
        embed_attr_abs: Standard errors of `attr_abs`, likewise.
        unembed_attr: Source layer to vectors by block, one after the other, bfloat16.
        embed_unembed_attr: The vectors of tokens.
        n_groups: Kind of edges to source layer, or `embed`, to the effective number of groups of batches, or of blocks,
            in which each component, or token id, occurred: C^2 / sum of c^2; 0 for what did not occur. All of them,
            float32, in either form.
        n_all_groups: Kind of edges to the number of all groups, or blocks.
    """

    regular_attr: Mapping[str, Mapping[str, BFloat16[Tensor, "_target _source"]]]
    regular_attr_abs: Mapping[str, Mapping[str, BFloat16[Tensor, "_target _source"]]]
    embed_attr: Mapping[str, BFloat16[Tensor, "_target vocab"]]
    embed_attr_abs: Mapping[str, BFloat16[Tensor, "_target vocab"]]
    unembed_attr: Mapping[str, BFloat16[Tensor, "_source block_x_d_model"]]
    embed_unembed_attr: BFloat16[Tensor, "vocab block_x_d_model"]
    n_groups: Mapping[Kind, Mapping[str, Float[Tensor, " _component"]]]
    n_all_groups: Mapping[Kind, int]

    @classmethod
    def from_entry(cls, entry: object) -> "StandardErrors":
        """Read what a file holds.

        Raises:
            StorageError: If it is not what `to_entry` gives.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(entry, Mapping) or entry.keys() != set(names):
            raise StorageError(f"standard_errors: expected {names}, found {short(entry)}")
        for name in EDGES:
            if not _is_nested(entry[name], _N_MAPPINGS[name]):
                raise StorageError(f"standard_errors: {name} is of a wrong type: expected tensors of bfloat16")
        counts, groups = entry["n_all_groups"], entry["n_groups"]
        if not isinstance(counts, Mapping) or not isinstance(groups, Mapping) or counts.keys() != groups.keys():
            raise StorageError(f"standard_errors: expected groups by kind of edges, found {short(counts)}")
        if not all(kind in ("attr", "attr_abs", "output") and _is_count(count) for kind, count in counts.items()):
            raise StorageError(f"standard_errors: expected numbers of groups by kind of edges, found {short(counts)}")
        if not all(isinstance(by_layer, Mapping) for by_layer in groups.values()):
            raise StorageError("standard_errors: expected numbers of groups by layer")
        return cls(**entry)

    def to_entry(self) -> dict[str, Any]:
        """What a file holds."""
        return {name: _plain(value) for name, value in vars(self).items()}

    def edges(self, source: str, target: str, metric: AttrMetric) -> Tensor:
        """Standard errors of the edges between two layers of components, or the vectors of a layer into the output."""
        if target == OUTPUT:
            return self.embed_unembed_attr if source == EMBED else self.unembed_attr[source]
        if source == EMBED:
            return (self.embed_attr if metric == "attr" else self.embed_attr_abs)[target]
        return (self.regular_attr if metric == "attr" else self.regular_attr_abs)[target][source]

    def check(self, shapes: Mapping[str, tuple[int, ...]], n_all: Mapping[str, int], has_abs: bool) -> None:  # noqa: FBT001 - a fact, no mode
        """Refuse what does not belong to the sums of a result.

        Args:
            shapes: Name of each tensor of sums, as `Content.named_sums` gives it, to its shape.
            n_all: Layer, or `embed`, to the number of its components, or token ids.
            has_abs: Whether there are sums of `attr_abs`.

        Raises:
            StorageError: If a tensor is missing, or has another shape than its sums.
        """
        expected = {name: shape for name, shape in shapes.items() if name.partition("[")[0] in EDGES}
        for name, (d_model, n_sources) in list(expected.items()):
            if name.partition("[")[0] in TO_OUTPUT:
                expected[name] = (n_sources, N_BLOCKS * d_model)
        found = {name: tuple(tensor.shape) for key in EDGES for name, tensor in _named(key, getattr(self, key))}
        for name in expected | found:
            if expected.get(name) != found.get(name):
                raise StorageError(
                    f"standard_errors: {name}: expected {expected.get(name, 'nothing')}, "
                    f"found {found.get(name, 'nothing')}"
                )
        kinds = {"attr", "output", *(["attr_abs"] if has_abs else [])}
        if self.n_groups.keys() != kinds:
            raise StorageError(f"standard_errors: expected groups of {sorted(kinds)}, found {sorted(self.n_groups)}")
        for kind, by_layer in self.n_groups.items():
            for layer, numbers in by_layer.items():
                if layer not in n_all or not _is_vector(numbers, n_all[layer]):
                    raise StorageError(
                        f"standard_errors: n_groups of {kind}: {short(layer)} is no layer, or of another size"
                    )


# Names of the tensors of edges, and of those into output tokens.
EDGES = "regular_attr", "regular_attr_abs", "embed_attr", "embed_attr_abs", "unembed_attr", "embed_unembed_attr"
TO_OUTPUT = "unembed_attr", "embed_unembed_attr"
_N_MAPPINGS = dict(zip(EDGES, (2, 2, 1, 1, 1, 0), strict=True))


def kind_of(target: str, metric: AttrMetric) -> Kind:
    """The kind of edges into a layer."""
    return "output" if target == OUTPUT else metric


def _is_nested(value: object, depth: int) -> bool:
    if depth == 0:
        return isinstance(value, Tensor) and value.dtype == torch.bfloat16
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_nested(v, depth - 1) for k, v in value.items())


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST_GROUPS


def _is_vector(value: object, length: int) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32 and tuple(value.shape) == (length,)


def _named(name: str, value: Any) -> list[tuple[str, Tensor]]:  # noqa: ANN401 - a tensor, or a mapping of such
    if isinstance(value, Tensor):
        return [(name, value)]
    return [pair for key, inner in value.items() for pair in _named(f"{name}[{key}]", inner)]


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:  # noqa: ANN401 - a tensor, a number, or a mapping
    """Another nesting of the same form; what is no tensor stays."""
    if isinstance(value, Mapping):
        return {key: map_tensors(inner, function) for key, inner in value.items()}
    return function(value) if isinstance(value, Tensor) else value


def _plain(value: Any) -> Any:  # noqa: ANN401 - as above
    return map_tensors(value, lambda tensor: tensor.detach().cpu().contiguous())
