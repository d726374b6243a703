"""The committed parts of a harvest, for pictures of how it came about."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from lit_attr.parts.counting import CountingPart, counting_parts
from lit_attr.parts.generations import begun_generations
from lit_attr.parts.header import Header
from lit_attr.parts.read_vectors import load_read_vectors
from lit_attr.topology.read_vectors import ReadVectors


@dataclass(frozen=True)
class HarvestParts:
    """The parts of a harvest that have batches; where targets are dealt out, of the target shard with the most parts.

    Attributes:
        parts: The parts, the oldest first.
        header: What all parts share.
        read: The read vectors of the targets.
        n_planned: Batches of the whole harvest.
    """

    parts: Sequence[CountingPart]
    header: Header
    read: ReadVectors
    n_planned: int

    @classmethod
    def of(cls, folder: Path) -> "HarvestParts":
        """The parts of a harvest.

        Args:
            folder: The harvest's folder.

        Raises:
            StorageError: If a part is damaged, foreign or counted twice, or the harvest has not begun.
        """
        header = Header.load(folder)
        generations = [generation for generation in begun_generations(folder) if generation is not None]
        of_shards = [list(counting_parts(generation, header.layout(generation))) for generation in generations]
        return cls(
            [part for part in max(of_shards, key=len) if len(part.ids)],
            header,
            load_read_vectors(folder, header.topology, header.alive),
            max(generation.n_batches for generation in generations),
        )

    @property
    def n_batches(self) -> list[int]:
        """Batches after each part."""
        return list(accumulate(len(part.ids) for part in self.parts))

    @property
    def n_tokens(self) -> list[int]:
        """Tokens after each part."""
        return list(accumulate(int(part.sums.n_tokens) for part in self.parts))
