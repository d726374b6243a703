"""Which lists of strongest edges an index holds.

Every source has lists of its strongest targets: one of components, and one of output tokens. Every output token has
lists of its strongest sources: components, and tokens. Sources of components need none: a block's rows lie together.
Each is kept for every metric that it has, raw and normalised (which rank differently), and for both signs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lit_attr.storage.blocks import Blocks
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.words import METRICS, SIGNS, AttrMetric, Direction, Sign

COMPONENTS = "components"
# The section of an index with the strongest edges of pairs of layers.
PAIRS = "pairs"


def kind_of(layer: str) -> str:
    """`embed`, `output`, or `components`."""
    return layer if layer in (EMBED, OUTPUT) else COMPONENTS


def place_of(metric: AttrMetric, normalized: bool, sign: Sign) -> int:
    """Which of a key's lists is the one for these."""
    return METRICS.index(metric) * 4 + normalized * 2 + SIGNS.index(sign)


@dataclass(frozen=True)
class Family:
    """The lists of one layer's keys, of one kind of neighbours.

    Attributes:
        direction: Whether the lists are of the keys' sources, or of their targets.
        layer: Of the keys.
        kind: Of the neighbours.
        n_keys: Components or token ids of the layer.
        neighbours: Layers of the neighbours, with their sizes, in the order in which they are counted.
        metrics: Those that the edges have.
    """

    direction: Direction
    layer: str
    kind: str
    n_keys: int
    neighbours: tuple[tuple[str, int], ...]
    metrics: tuple[AttrMetric, ...]

    @property
    def name(self) -> str:
        """Unique in an index."""
        return family_name(self.direction, self.layer, self.kind)

    @property
    def n_neighbours(self) -> int:
        """Of each key."""
        return sum(size for _, size in self.neighbours)

    @property
    def n_lists(self) -> int:
        """Of each key."""
        return len(self.metrics) * 4

    def pair(self, neighbour: str) -> tuple[str, str]:
        """Source and target layer of the edges between keys and a layer of neighbours."""
        return (self.layer, neighbour) if self.direction == "targets" else (neighbour, self.layer)


def family_name(direction: Direction, layer: str, kind: str) -> str:
    """The name of a family."""
    return f"{direction}/{layer}/{kind}"


def layer_pairs(blocks: Blocks, metric: AttrMetric) -> list[tuple[str, str]]:
    """All pairs of source and target layer between which there are edges."""
    sources = [EMBED, *blocks.content.ci_sum]
    return [(source, target) for source in sources for target in blocks.target_layers(source, metric)]


def families(blocks: Blocks) -> Iterator[Family]:
    """All families of a stored harvest; those of targets contain each pair of layers once."""
    for source in (EMBED, *blocks.content.ci_sum):
        fed = blocks.target_layers(source, "attr")
        if components := [layer for layer in fed if layer != OUTPUT]:
            yield _family(blocks, "targets", source, components, METRICS)
        if OUTPUT in fed:
            yield _family(blocks, "targets", source, [OUTPUT], ("attr",))
    if components := [*blocks.content.unembed_attr]:
        yield _family(blocks, "sources", OUTPUT, components, ("attr",))
    yield _family(blocks, "sources", OUTPUT, [EMBED], ("attr",))


def _family(
    blocks: Blocks, direction: Direction, layer: str, neighbours: list[str], metrics: tuple[AttrMetric, ...]
) -> Family:
    sizes = tuple((neighbour, blocks.size(neighbour)) for neighbour in neighbours)
    return Family(direction, layer, kind_of(neighbours[0]), blocks.size(layer), sizes, metrics)
