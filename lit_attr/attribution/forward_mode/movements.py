"""Movements of a layer's output: every active source at every position has its place in one of few of them."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Movements:
    """What the sources that are active at the positions of a sequence add to a layer's output, sorted by movement.

    Attributes:
        write: Rows that sources write.
        position: Of each pair of a source and a position.
        row: Of `write`, for each pair.
        weight: That the row is multiplied with.
        source: Of each pair, among `sources`.
        movement: In which each pair is.
        sources: The components, or token ids, that are active anywhere.
        count: Number of movements.
    """

    write: Float[Tensor, "row d_out"]
    position: Int[Tensor, " pair"]
    row: Int[Tensor, " pair"]
    weight: Float[Tensor, " pair"]
    source: Int[Tensor, " pair"]
    movement: Int[Tensor, " pair"]
    sources: Int[Tensor, " source"]
    count: int

    @classmethod
    def of_components(
        cls, write: Float[Tensor, "component d_out"], weights: Float[Tensor, "seq component"], spreading: bool
    ) -> "Movements":
        """Of a decomposed matrix.

        Args:
            write: What a unit of each component writes.
            weights: Activation times causal importance.
            spreading: Whether what a position adds is felt at other positions: then each source has a movement of its
                own. Otherwise a movement has a different source at each position, and few are needed.
        """
        position, component = weights.nonzero(as_tuple=True)
        sources, source = component.unique(return_inverse=True)
        movement = source if spreading else _rank_within(position)
        order = movement.argsort(stable=True)
        position, component = position[order], component[order]
        count = int(movement.max()) + 1 if len(movement) else 0
        return cls(
            write, position, component, weights[position, component], source[order], movement[order], sources, count
        )

    @classmethod
    def of_tokens(
        cls, embeddings: Float[Tensor, "seq d_model"], tokens: Int[Tensor, " seq"], spreading: bool
    ) -> "Movements":
        """Of the embedding; see `of_components`.

        Args:
            embeddings: Of the tokens.
            tokens: Token ids.
            spreading: As there.
        """
        token_ids, source = tokens.unique(return_inverse=True)
        movement = source if spreading else torch.zeros_like(source)
        order = movement.argsort(stable=True)
        weight = embeddings.new_ones(len(tokens))
        count = len(token_ids) if spreading else 1
        return cls(embeddings, order, order, weight, source[order], movement[order], token_ids, count)

    def some(self, piece: slice) -> "Movements":
        """Some of the movements, counted anew."""
        bounds = torch.tensor([piece.start, piece.stop], device=self.movement.device)
        pairs = slice(*torch.searchsorted(self.movement, bounds).tolist())
        return replace(
            self,
            position=self.position[pairs],
            row=self.row[pairs],
            weight=self.weight[pairs],
            source=self.source[pairs],
            movement=self.movement[pairs] - piece.start,
            count=piece.stop - piece.start,
        )

    def dense(self, seq_len: int) -> Float[Tensor, "movement seq d_out"]:
        """What each movement adds at each position."""
        moved = self.write.new_zeros(self.count, seq_len, self.write.shape[1])
        moved[self.movement, self.position] = self.write[self.row] * self.weight[:, None]
        return moved


def _rank_within(position: Int[Tensor, " pair"]) -> Int[Tensor, " pair"]:
    """How many pairs before each have the same position, where positions are sorted."""
    first = torch.searchsorted(position, position)
    return torch.arange(len(position), device=position.device) - first
