"""Edge blocks whose direct paths lead from a position to other positions."""

from collections.abc import Collection

from lit_attr.decomposition.anatomy import Anatomy, Attention
from lit_attr.topology.address import EMBED, OUTPUT


def mixes_positions(source: str, target: str, anatomy: Anatomy | None, decomposed: Collection[str]) -> bool:
    """Whether direct paths between two layers may lead through attention, the one thing that mixes positions.

    Args:
        source: Layer that the paths leave.
        target: Layer that they reach.
        anatomy: What lies between the matrices; where that is not known the answer is yes.
        decomposed: Layers that cut direct paths.
    """
    if anatomy is None:
        return True
    # Places along the forward: of each stage where its sublayers are read into, where attention mixes, and where they
    # are read out of; what they write is there for the next stage.
    writes, reads = {EMBED: 0}, {OUTPUT: 3 * len(anatomy.stages)}
    mixing: list[tuple[int, Attention]] = []
    for depth, stage in enumerate(anatomy.stages):
        for sublayer in stage:
            reads |= {**dict.fromkeys(sublayer.readers, 3 * depth), sublayer.out: 3 * depth + 2}
            writes |= {**dict.fromkeys(sublayer.readers, 3 * depth + 1), sublayer.out: 3 * depth + 3}
            if isinstance(sublayer, Attention):
                mixing.append((3 * depth + 1, sublayer))
    begin, end = writes[source], reads[target]

    def crossed(place: int, attention: Attention) -> bool:
        entered = begin == place or any(layer not in decomposed for layer in attention.readers)
        left = end == place + 1 or attention.out not in decomposed
        return begin <= place < end and entered and left

    return any(crossed(place, attention) for place, attention in mixing)
