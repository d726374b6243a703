"""Tangents of a layer's output: what its active sources add to it, spread over as few tangents as can be told apart."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Tangents:
    """Directions in which the sources of a layer move its output over one sequence.

    A pair is a source and a position at which it is active. Every pair has its place in one tangent; pairs are sorted
    by tangent.

    Attributes:
        write: Rows that sources write.
        position: Position of each pair.
        row: Row of `write` of each pair.
        weight: Factor of that row, for each pair.
        source: Source of each pair, counted among `sources`.
        tangent: Tangent that each pair is in.
        sources: Components, or token ids, that are active anywhere.
        count: Number of tangents.
        one_source_each: Whether each tangent holds one source alone, at all positions where it is active. Otherwise it
            holds at most one source at each position.
    """

    write: Float[Tensor, "row d_out"]
    position: Int[Tensor, " pair"]
    row: Int[Tensor, " pair"]
    weight: Float[Tensor, " pair"]
    source: Int[Tensor, " pair"]
    tangent: Int[Tensor, " pair"]
    sources: Int[Tensor, " source"]
    count: int
    one_source_each: bool

    @classmethod
    def of_components(
        cls, write: Float[Tensor, "component d_out"], weights: Float[Tensor, "seq component"], *, one_source_each: bool
    ) -> "Tangents":
        """Tangents of the output of a decomposed matrix.

        Args:
            write: Write vectors of its components.
            weights: Activation times causal importance.
            one_source_each: Whether a tangent may hold one source only: necessary where paths mix positions. Otherwise
                there are as many tangents as sources active at one position.
        """
        position, component = weights.nonzero(as_tuple=True)
        sources, source = component.unique(return_inverse=True)
        tangent = source if one_source_each else _rank_within(position)
        order = tangent.argsort(stable=True)
        position, component = position[order], component[order]
        return cls(
            write=write,
            position=position,
            row=component,
            weight=weights[position, component],
            source=source[order],
            tangent=tangent[order],
            sources=sources,
            count=int(tangent.max()) + 1 if len(tangent) else 0,
            one_source_each=one_source_each,
        )

    @classmethod
    def of_tokens(
        cls, embeddings: Float[Tensor, "seq d_model"], tokens: Int[Tensor, " seq"], *, one_source_each: bool
    ) -> "Tangents":
        """Tangents of the embedding, whose sources are token ids.

        Args:
            embeddings: Embedding of the token at each position.
            tokens: Token ids.
            one_source_each: Whether a tangent may hold one token id only; see `of_components`.
        """
        token_ids, source = tokens.unique(return_inverse=True)
        tangent = source if one_source_each else torch.zeros_like(source)
        order = tangent.argsort(stable=True)
        return cls(
            write=embeddings,
            position=order,
            row=order,
            weight=embeddings.new_ones(len(tokens)),
            source=source[order],
            tangent=tangent[order],
            sources=token_ids,
            count=len(token_ids) if one_source_each else 1,
            one_source_each=one_source_each,
        )

    def some(self, piece: slice) -> "Tangents":
        """Some of the tangents, counted anew."""
        bounds = torch.tensor([piece.start, piece.stop], device=self.tangent.device)
        pairs = slice(*torch.searchsorted(self.tangent, bounds).tolist())
        return replace(
            self,
            position=self.position[pairs],
            row=self.row[pairs],
            weight=self.weight[pairs],
            source=self.source[pairs],
            tangent=self.tangent[pairs] - piece.start,
            count=piece.stop - piece.start,
        )

    def dense(self, seq_len: int) -> Float[Tensor, "tangent seq d_out"]:
        """The tangents themselves, zero at positions where they hold no pair."""
        dense = self.write.new_zeros(self.count, seq_len, self.write.shape[1])
        dense[self.tangent, self.position] = self.write[self.row] * self.weight[:, None]
        return dense


def _rank_within(position: Int[Tensor, " pair"]) -> Int[Tensor, " pair"]:
    """How many pairs before each have the same position, where positions are sorted."""
    first = torch.searchsorted(position, position)
    return torch.arange(len(position), device=position.device) - first
