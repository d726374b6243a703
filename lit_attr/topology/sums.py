"""Raw sums of attributions and normalisers, before they become a storage."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.words import AttrMetric

# Elements that one chunk of an addition converts: bounds its temporary, 32 MiB in float64.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Sums:
    """Sums over tokens, to be updated in place.

    Embedding sums are kept token by row, so that adding the tokens of a batch touches whole rows; the file's layout is
    the transpose.

    Attributes:
        regular: Target layer to source layer to sums.
        regular_abs: Target layer to source layer to sums of `attr_abs`.
        embed: Target layer to sums by token, for the targets that the embedding feeds.
        embed_abs: Target layer to sums of `attr_abs` by token.
        unembed: Source layer to sums by residual dimension, for the sources that feed the output.
        embed_unembed: Sums by token and residual dimension.
        ci: Layer to sums of causal importances.
        act_sq: Layer to sums of squared component activations; zero for layers that are no targets.
        logit_sq: Sums of squared logits.
        token_count: Occurrences of each token id.
        n_tokens: Number of tokens.
    """

    regular: dict[str, dict[str, Float[Tensor, "_target _source"]]]
    regular_abs: dict[str, dict[str, Float[Tensor, "_target _source"]]]
    embed: dict[str, Float[Tensor, "vocab _target"]]
    embed_abs: dict[str, Float[Tensor, "vocab _target"]]
    unembed: dict[str, Float[Tensor, "d_model _source"]]
    embed_unembed: Float[Tensor, "vocab d_model"]
    ci: dict[str, Float[Tensor, " _component"]]
    act_sq: dict[str, Float[Tensor, " _component"]]
    logit_sq: Float[Tensor, " vocab"]
    token_count: Int[Tensor, " vocab"]
    n_tokens: Int[Tensor, ""]

    @classmethod
    def zeros(cls, topology: Topology, dtype: torch.dtype, device: torch.device | str = "cpu") -> "Sums":
        """Sums of nothing.

        Args:
            topology: Decides names and shapes.
            dtype: Floating-point type of the sums; counts are int64.
            device: Device that keeps them.
        """

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        count = topology.n_components
        vocab, d_model = topology.vocab_size, topology.d_model

        def regular() -> dict[str, dict[str, Tensor]]:
            return {
                t: {s: zeros(count[t], count[s]) for s in topology.component_sources(t)}
                for t in topology.component_targets
            }

        def embed() -> dict[str, Tensor]:
            return {t: zeros(vocab, count[t]) for t in topology.component_targets if topology.fed_by_embedding(t)}

        output_sources = topology.component_sources(OUTPUT) if OUTPUT in topology.sources else []
        return cls(
            regular=regular(),
            regular_abs=regular(),
            embed=embed(),
            embed_abs=embed(),
            unembed={s: zeros(d_model, count[s]) for s in output_sources},
            embed_unembed=zeros(vocab, d_model),
            ci={layer: zeros(n) for layer, n in count.items()},
            act_sq={layer: zeros(n) for layer, n in count.items()},
            logit_sq=zeros(vocab),
            token_count=torch.zeros(vocab, dtype=torch.int64, device=device),
            n_tokens=torch.zeros((), dtype=torch.int64, device=device),
        )

    @classmethod
    def from_named(cls, topology: Topology, tensors: Mapping[str, Tensor]) -> "Sums":
        """Sums made of the tensors that `named` gives.

        Args:
            topology: Decides names.
            tensors: Name to tensor, of the topology's shapes.
        """
        sums = cls.zeros(topology, torch.float64, "meta")
        places = {id(tensor): tensors[name] for name, tensor in sums.named()}
        return cls(**{name: _exchange(value, places) for name, value in vars(sums).items()})

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors with unique names, in a fixed order."""
        for metric, nested in (("attr", self.regular), ("attr_abs", self.regular_abs)):
            for target, by_source in nested.items():
                for source, tensor in by_source.items():
                    yield f"{metric}/{source}->{target}", tensor
        for metric, by_target in (("attr", self.embed), ("attr_abs", self.embed_abs)):
            for target, tensor in by_target.items():
                yield f"{metric}/{EMBED}->{target}", tensor
        for source, tensor in self.unembed.items():
            yield f"attr/{source}->{OUTPUT}", tensor
        yield f"attr/{EMBED}->{OUTPUT}", self.embed_unembed
        for name, by_layer in (("ci", self.ci), ("act_sq", self.act_sq)):
            for layer, tensor in by_layer.items():
                yield f"{name}/{layer}", tensor
        yield "logit_sq", self.logit_sq
        yield "token_count", self.token_count
        yield "n_tokens", self.n_tokens

    def edge(self, source: str, target: str) -> dict[AttrMetric, Float[Tensor, "source target"]]:
        """Views of one edge block's sums, source by target: what is added to them is added to the sums.

        Args:
            source: Layer whose components are the sources, or `embed`, whose sources are token ids.
            target: Layer whose components are the targets, or `output`, whose targets are residual dimensions.

        Returns:
            `attr` and, unless the target is the output, `attr_abs`.

        Raises:
            KeyError: If the topology has no such edge block.
        """
        if target == OUTPUT:
            return {"attr": self.embed_unembed if source == EMBED else self.unembed[source].T}
        if source == EMBED:
            return {"attr": self.embed[target], "attr_abs": self.embed_abs[target]}
        return {"attr": self.regular[target][source].T, "attr_abs": self.regular_abs[target][source].T}

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
        into.add_(chunk.to(into))
