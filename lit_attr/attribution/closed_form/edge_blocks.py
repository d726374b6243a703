"""Edge blocks that have a closed form, and which closed form that is."""

from dataclasses import dataclass
from typing import Literal

from lit_attr.decomposition.anatomy import Anatomy, Attention, Mlp, Norm
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology


@dataclass(frozen=True)
class EdgeBlock:
    """An edge block with a closed form.

    Attributes:
        source: Source layer, or `embed`.
        target: Target layer, or `output`.
        kind: What the block leads through: the residual stream, the hidden layer of an MLP, or a part of attention.
        through: The norm in front of the target, or the sublayer that both are in.
    """

    source: str
    target: str
    kind: Literal["stream", "mlp", "value", "query", "key"]
    through: Norm | Mlp | Attention


def closed_edges(topology: Topology, anatomy: Anatomy | None) -> list[EdgeBlock]:
    """The edge blocks whose every direct path is closed, source by source in the order of the forward.

    Inside a sublayer that holds always. Through the residual stream it holds if every sublayer between the two is cut
    by decomposed matrices, so that the stream itself is the only path.

    Args:
        topology: The attribution graph.
        anatomy: What lies between the matrices; None where that is not known.

    Returns:
        The blocks; one from a fused matrix is there once for each of its parts.
    """
    if anatomy is None:
        return []
    sublayers = anatomy.sublayers
    decomposed = topology.n_components.keys()
    reads: dict[str, tuple[int, Norm]] = {OUTPUT: (len(anatomy.stages), anatomy.final_norm)}
    writes = {EMBED: -1}
    within: dict[tuple[str, str], list[EdgeBlock]] = {}
    cut = []
    for depth, stage in enumerate(anatomy.stages):
        cut.append(all(s.out in decomposed or all(layer in decomposed for layer in s.readers) for s in stage))
        for sublayer in stage:
            writes[sublayer.out] = depth
            reads |= {layer: (depth, sublayer.norm) for layer in sublayer.readers}
            for edge in _inside(sublayer):
                within.setdefault((edge.source, edge.target), []).append(edge)
    edges: list[EdgeBlock] = []
    for source in (EMBED, *(layer for s in sublayers for layer in (*s.readers, s.out))):
        for target, sources in topology.sources.items():
            if source not in sources:
                continue
            if (source, target) in within:
                edges += within[source, target]
            elif source in writes and target in reads:
                depth, norm = reads[target]
                if all(cut[writes[source] + 1 : depth]):
                    edges.append(EdgeBlock(source, target, "stream", norm))
    return edges


def _inside(sublayer: Attention | Mlp) -> list[EdgeBlock]:
    if isinstance(sublayer, Mlp):
        return [EdgeBlock(layer, sublayer.out, "mlp", sublayer) for layer in sublayer.readers]
    return [
        EdgeBlock(sublayer.value.layer, sublayer.out, "value", sublayer),
        EdgeBlock(sublayer.query.layer, sublayer.out, "query", sublayer),
        EdgeBlock(sublayer.key.layer, sublayer.out, "key", sublayer),
    ]
