"""Which lists of strongest edges there are, and which of them an index holds.

Every source has lists of its strongest targets: one of components, and one of output tokens. Every target has lists of
its strongest sources: components, and tokens. In an index, components have no sources: a block's rows lie together.
Each is kept for every metric that it has and that was harvested, raw and normalised (which rank differently), and for
both signs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from lit_attr.query.tiles import LayerEdges
from lit_attr.storage.blocks import Blocks
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import METRICS, SIGNS, AttrMetric, Direction, Sign

COMPONENTS = "components"
# The section of an index with the strongest edges of pairs of layers.
PAIRS = "pairs"
# The lists of one metric in the order of a record: whether normalised values rank, and which end they hold.
RANKINGS: tuple[tuple[bool, Sign], ...] = tuple(product((False, True), SIGNS))


def kind_of(layer: str) -> str:
    """`embed`, `output`, or `components`."""
    return layer if layer in (EMBED, OUTPUT) else COMPONENTS


def number_in_pair(measure: Measure, sign: Sign) -> int:
    """Which list of a pair of layers and a metric holds the strongest edges."""
    return RANKINGS.index((measure.normalized, sign))


def number_in_key(measure: Measure, sign: Sign) -> int:
    """Which list of a key holds its strongest neighbours."""
    return METRICS.index(measure.metric) * len(RANKINGS) + number_in_pair(measure, sign)


@dataclass(frozen=True)
class KeyLists:
    """The lists of one layer's keys, with neighbours of one kind.

    Attributes:
        edges: The edges among which are the strongest.
        kind: Kind of the neighbours.
        metrics: Metrics that the edges have.
    """

    edges: LayerEdges
    kind: str
    metrics: tuple[AttrMetric, ...]

    @property
    def name(self) -> str:
        """Name of the section in an index."""
        return section_name(self.edges.direction, self.edges.layer, self.kind)

    @property
    def n_lists(self) -> int:
        """Number of lists of each key."""
        return len(self.metrics) * len(RANKINGS)


def section_name(direction: Direction, layer: str, kind: str) -> str:
    """Name of the section with the lists of one layer's keys, unique in an index.

    Args:
        direction: Whether the neighbours are sources or targets.
        layer: Layer of the keys.
        kind: Kind of the neighbours.
    """
    return f"{direction}/{layer}/{kind}"


def indexed_lists(blocks: Blocks) -> Iterator[KeyLists]:
    """The lists of keys that an index holds; those of targets contain each pair of layers once."""
    both = blocks.content.metrics
    for source in (EMBED, *blocks.content.ci_sum):
        fed = blocks.target_layers(source, "attr")
        if components := [layer for layer in fed if layer != OUTPUT]:
            yield _lists(blocks, "targets", source, components, both)
        if OUTPUT in fed:
            yield _lists(blocks, "targets", source, [OUTPUT], ("attr",))
    yield from _sources(blocks, OUTPUT, ("attr",))


def all_lists(blocks: Blocks) -> Iterator[KeyLists]:
    """All lists of keys: those of an index, and the sources of components."""
    yield from indexed_lists(blocks)
    for target in blocks.content.ci_sum:
        yield from _sources(blocks, target, blocks.content.metrics)


def _sources(blocks: Blocks, target: str, metrics: tuple[AttrMetric, ...]) -> Iterator[KeyLists]:
    by_kind: dict[str, list[str]] = {}
    for source in blocks.source_layers(target, "attr"):
        by_kind.setdefault(kind_of(source), []).append(source)
    for sources in by_kind.values():
        yield _lists(blocks, "sources", target, sources, metrics)


def _lists(
    blocks: Blocks, direction: Direction, layer: str, others: Sequence[str], metrics: tuple[AttrMetric, ...]
) -> KeyLists:
    return KeyLists(LayerEdges.between(blocks, direction, layer, others), kind_of(others[0]), metrics)
