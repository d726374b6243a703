"""Standard errors as a result's file holds them, under the key `standard_errors`.

A standard error says how far a sum would come out elsewhere on other batches of the same kind, given how often its
source occurs; see `lit_attr.storage.summed_errors` for where it comes from. It is in the unit of the sum, so that both
are normalised alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Literal

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.errors import shown as short
from lit_attr.storage.fill import leaves
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

    def check(self, shapes: Mapping[str, tuple[int, ...]], n_all: Mapping[str, int]) -> None:
        """Refuse what does not belong to the sums of a result.

        Args:
            shapes: Name of each tensor of sums, as `Content.named_sums` gives it, to its shape.
            n_all: Layer, or `embed`, to the number of its components, or token ids.

        Raises:
            StorageError: If a tensor is missing, or has another shape than its sums.
        """
        expected = {name: shape for name, shape in shapes.items() if name.partition("[")[0] in EDGES}
        for name, (d_model, n_sources) in list(expected.items()):
            if name.partition("[")[0] in TO_OUTPUT:
                expected[name] = (n_sources, N_BLOCKS * d_model)
        tensors = dict(leaves({key: getattr(self, key) for key in EDGES}))
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name in expected | found:
            if expected.get(name) != found.get(name):
                raise StorageError(
                    f"standard_errors: {name}: expected {expected.get(name, 'nothing')}, "
                    f"found {found.get(name, 'nothing')}"
                )
        groups = dict(leaves({kind: self.n_groups.get(kind, {}) for kind in (*self.n_groups, *self._sources)}))
        for kind, layers in self._sources.items():
            for layer in layers:
                vector = groups.get(f"{kind}[{layer}]")
                if vector is None or vector.dtype != torch.float32 or vector.shape != (n_all[layer],):
                    found_one = "nothing" if vector is None else f"{vector.dtype} of shape {tuple(vector.shape)}"
                    raise StorageError(
                        f"standard_errors: n_groups of {kind}: expected {n_all[layer]} float32 numbers of "
                        f"{short(layer)}, found {found_one}"
                    )

    @property
    def _sources(self) -> dict[Kind, set[str]]:
        """Kind of edges to the layers that they come from."""
        return {
            "attr": {*chain.from_iterable(self.regular_attr.values()), *([EMBED] if self.embed_attr else [])},
            "attr_abs": {
                *chain.from_iterable(self.regular_attr_abs.values()),
                *([EMBED] if self.embed_attr_abs else []),
            },
            "output": {*self.unembed_attr, EMBED},
        }


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


def _plain(value: Any) -> Any:  # noqa: ANN401 - a tensor, a number, or a mapping of such
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.detach().cpu().contiguous() if isinstance(value, Tensor) else value
