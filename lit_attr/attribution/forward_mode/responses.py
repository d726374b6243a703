"""What targets answer to movements of a source layer, added to the sums."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.ends import Destination
from lit_attr.attribution.forward_mode.movements import Movements
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.sums import Sums


@dataclass(frozen=True)
class Reader:
    """The targets of a layer, over the positions of a sequence.

    Attributes:
        read: Their read vectors; None for the output, whose targets are the dimensions of its input.
        sign: Of their activations; None where `attr_abs` is not defined.
        columns: The components that are targets.
    """

    read: Float[Tensor, "d_in target"] | None
    sign: Float[Tensor, "seq target"] | None
    columns: slice | Int[Tensor, " target"]


def tables(sums: Sums, source: str, target: str) -> list[Float[Tensor, "source target"]]:
    """Views of the sums of an edge block: of `attr` and, unless the target is the output, of `attr_abs`."""
    if target == OUTPUT:
        return [sums.embed_unembed if source == EMBED else sums.unembed[source].T]
    if source == EMBED:
        return [sums.embed[target], sums.embed_abs[target]]
    return [by_target[target][source].T for by_target in (sums.regular, sums.regular_abs)]


def add_answer_(
    into: list[Float[Tensor, "source target"]],
    reader: Reader,
    movements: Movements,
    spreading: bool,
    answer: Float[Tensor, "movement seq d_in"],
) -> None:
    """Add what one layer answers.

    Args:
        into: Where `attr` and `attr_abs` are summed, source by target.
        reader: The targets.
        movements: Of a source layer's output.
        spreading: Whether each movement is of one source alone.
        answer: How the input of the targets' matrix moves.
    """
    if spreading:
        sources = movements.sources[movements.source.unique_consecutive()]
    else:
        answer = answer[movements.movement, movements.position]
        present, place = movements.source.unique(return_inverse=True)
        sources = movements.sources[present]

    def by_source(values: Float[Tensor, "*axes width"]) -> Float[Tensor, "source width"]:
        if spreading:
            return values.sum(1)
        return values.new_zeros(len(sources), values.shape[-1]).index_add_(0, place, values)

    moved = by_source(answer)  # `attr` is linear in the input: summed before the read vectors meet it
    attr = moved[:, reader.columns] if reader.read is None else moved @ reader.read
    Destination(into[0], sources, reader.columns).add_(attr.to(into[0].dtype))
    if reader.read is not None and reader.sign is not None:
        effect = answer @ reader.read
        effect.mul_(reader.sign if spreading else reader.sign[movements.position])
        Destination(into[1], sources, reader.columns).add_(by_source(effect).to(into[1].dtype))
