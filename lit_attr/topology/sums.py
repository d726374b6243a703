"""Raw sums of attributions and normalisers, before they become a result."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.topology.address import EMBED
from lit_attr.topology.graph import Topology
from lit_attr.topology.words import Harvested

# Elements that one chunk of an addition converts: bounds its temporary, 32 MiB in float64.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Sums:
    """Sums over tokens, to be updated in place.

    A target's activation is linear in its input: y = V . x. Sums of `attr` are therefore kept in *read space*: what
    each source adds to x, which serves all targets that read x. Their read vectors meet it when a result is written;
    see `ReadVectors`. The sign in `attr_abs` stands between source and target, so that every target has sums of its
    own.

    Sources are rows everywhere; those of the embedding are all token ids.

    Attributes:
        attr: Name of an input (see `Topology.inputs`) to source layer to sums, source by width of the input.
        attr_abs: Target layer to source layer to sums, source by target; empty where they are not harvested.
        ci: Layer to sums of causal importances.
        act_sq: Layer to sums of squared component activations; zero for layers that are no targets.
        logit_sq: Sums of squared logits.
        token_count: Occurrences of each token id.
        n_tokens: Number of tokens.
        n_abs_tokens: Number of tokens over which `attr_abs` is summed.
    """

    attr: dict[str, dict[str, Float[Tensor, "_source _width"]]]
    attr_abs: dict[str, dict[str, Float[Tensor, "_source _target"]]]
    ci: dict[str, Float[Tensor, " _component"]]
    act_sq: dict[str, Float[Tensor, " _component"]]
    logit_sq: Float[Tensor, " vocab"]
    token_count: Int[Tensor, " vocab"]
    n_tokens: Int[Tensor, ""]
    n_abs_tokens: Int[Tensor, ""]

    @classmethod
    def zeros(
        cls, topology: Topology, dtype: torch.dtype, device: torch.device | str = "cpu", metrics: Harvested = "both"
    ) -> "Sums":
        """Sums of nothing.

        Args:
            topology: Decides names and shapes.
            dtype: Floating-point type of the sums; counts are int64.
            device: Device that keeps them.
            metrics: Which metrics are summed.
        """

        def zeros(*shape: int) -> Tensor:
            return _zeros(shape, dtype, device)

        def count() -> Tensor:
            return _zeros((), torch.int64, device)

        n_rows = {**topology.n_components, EMBED: topology.vocab_size}
        of_components = topology.component_targets if metrics == "both" else []
        return cls(
            attr={
                name: {source: zeros(n_rows[source], topology.widths[name]) for source in topology.sources[readers[0]]}
                for name, readers in topology.readers.items()
            },
            attr_abs={
                target: {
                    source: zeros(n_rows[source], topology.n_components[target]) for source in topology.sources[target]
                }
                for target in of_components
            },
            ci={layer: zeros(n) for layer, n in topology.n_components.items()},
            act_sq={layer: zeros(n) for layer, n in topology.n_components.items()},
            logit_sq=zeros(topology.vocab_size),
            token_count=_zeros((topology.vocab_size,), torch.int64, device),
            n_tokens=count(),
            n_abs_tokens=count(),
        )

    @classmethod
    def from_named(cls, topology: Topology, tensors: Mapping[str, Tensor], metrics: Harvested = "both") -> "Sums":
        """Sums made of the tensors that `named` gives.

        Args:
            topology: Decides names.
            tensors: Name to tensor, of the topology's shapes.
            metrics: Which metrics are summed.
        """
        sums = cls.zeros(topology, torch.float64, "meta", metrics)
        places = {id(tensor): tensors[name] for name, tensor in sums.named()}
        return cls(**{name: _exchange(value, places) for name, value in vars(sums).items()})

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors with unique names, in a fixed order."""
        for metric, nested in (("attr", self.attr), ("attr_abs", self.attr_abs)):
            for target, by_source in nested.items():
                for source, tensor in by_source.items():
                    yield f"{metric}/{source}->{target}", tensor
        for name, by_layer in (("ci", self.ci), ("act_sq", self.act_sq)):
            for layer, tensor in by_layer.items():
                yield f"{name}/{layer}", tensor
        yield "logit_sq", self.logit_sq
        yield "token_count", self.token_count
        yield "n_tokens", self.n_tokens
        yield "n_abs_tokens", self.n_abs_tokens

    def signed(self) -> "Sums":
        """These sums without `attr_abs`: what is added to them is added to these."""
        return replace(self, attr_abs={})

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.nbytes for _, tensor in self.named())

    def add_(self, other: "Sums") -> None:
        """Add other sums of the same topology, whatever their dtype and device, in bounded memory."""
        for (_, mine), (_, theirs) in zip(self.named(), other.named(), strict=True):
            add_chunked_(mine, theirs)

    def to(self, device: torch.device) -> "Sums":
        """These sums on another device; the same tensors where they are there already."""
        return replace(self, **{name: _move(value, device) for name, value in vars(self).items()})

    def zero_(self) -> None:
        """Set every sum to zero."""
        for _, tensor in self.named():
            tensor.zero_()


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Zeros that take memory on a CPU only where something is added: torch would write all of them."""
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


def _exchange(value: Tensor | dict, places: Mapping[int, Tensor]) -> Any:  # noqa: ANN401 - a tensor or a mapping
    if isinstance(value, Tensor):
        return places[id(value)]
    return {key: _exchange(inner, places) for key, inner in value.items()}


def _move(value: Tensor | dict, device: torch.device) -> Any:  # noqa: ANN401 - a tensor or a mapping
    if isinstance(value, Tensor):
        return value.to(device)
    return {key: _move(inner, device) for key, inner in value.items()}


def add_chunked_(total: Tensor, part: Tensor) -> None:
    """`total += part` without a temporary larger than one chunk; dtypes and devices may differ.

    Args:
        total: Contiguous tensor that is changed.
        part: Contiguous tensor of the same shape.
    """
    for into, chunk in zip(total.view(-1).split(CHUNK), part.reshape(-1).split(CHUNK), strict=True):
        into.add_(chunk.to(into.device))  # numbers are widened where they are added, not before they travel
