"""Which batches count, found out from the files alone, without any code of the package that decides it."""

import json
import re
from dataclasses import dataclass
from functools import cached_property

from tests.protocol.files import FileMap, PartContent

_GENERATION = re.compile(r"generation_(\d+)\.json")
_PART = re.compile(r"worker_states/dataset_attributions_rank_(\d+)(?:_generation_(\d+))?\.pt")
_SHARD = re.compile(r"target_shard_(\d+)/")


class Violation(AssertionError):
    """What must never happen, happened."""


@dataclass(frozen=True)
class Counted:
    """What counts, of one target shard.

    Attributes:
        number: Of the newest generation; 0 before the first.
        world_size: Its workers.
        n_batches: Its batches.
        frozen: File to its batches, as the generation says.
        parts: File that counts to its content, as far as it is there.
        shard: Number of the target shard.
    """

    number: int
    world_size: int
    n_batches: int
    frozen: dict[str, tuple[int, ...]]
    parts: dict[str, PartContent]
    shard: int = 0

    @classmethod
    def of(cls, files: FileMap, shard: int = 0, n_shards: int = 1) -> "Counted":
        place = place_of(shard, n_shards)
        here = [name.removeprefix(place) for name in files if name.startswith(place)]
        number = max((int(match[1]) for name in here if (match := _GENERATION.fullmatch(name))), default=0)
        if not number:
            return cls(0, 0, 0, {}, {}, shard)
        content = json.loads(files[f"{place}generation_{number}.json"])
        frozen = {f"{place}worker_states/{name}": ids_of(ranges) for name, ranges in content["frozen"]}
        own = {
            place + name
            for name in here
            if (match := _PART.fullmatch(name))
            and int(match[2] or 1) == number
            and int(match[1]) < content["world_size"]
        }
        parts = {name: files[name] for name in sorted({*frozen, *own}) if name in files}
        return cls(number, content["world_size"], content["n_batches"], frozen, parts, shard)

    @cached_property
    def ids(self) -> frozenset[int]:
        """Batches that count."""
        return frozenset(batch for content in self.parts.values() for batch in ledger_ids(content))

    def check(self) -> None:
        """Every part holds what its ledger says, once, and nothing that another holds.

        Raises:
            Violation: If not.
        """
        seen: set[int] = set()
        for name, content in self.parts.items():
            ids = ledger_ids(content)
            if json.loads(content.ledger)["target_shard"] != self.shard:
                raise Violation(f"{name} is of target shard {self.shard}, but its ledger is {content.ledger}")
            if content.numbers != ids:
                raise Violation(f"{name}: the ledger says {ids}, the numbers are of {content.numbers}")
            if name in self.frozen and self.frozen[name] != ids:
                raise Violation(f"{name} is frozen with {self.frozen[name]} and holds {ids}")
            if seen & {*ids}:
                raise Violation(f"{name} holds batches that count already: {sorted(seen & {*ids})}")
            seen |= {*ids}


def place_of(shard: int, n_shards: int) -> str:
    """How the names of a target shard's files begin."""
    return f"target_shard_{shard}/" if n_shards > 1 else ""


def shard_of(name: str) -> int:
    """The target shard of a file."""
    found = _SHARD.search(name)
    return int(found[1]) if found else 0


def ledger_ids(content: PartContent) -> tuple[int, ...]:
    return ids_of(json.loads(content.ledger)["batches"])


def ids_of(ranges: list[list[int]]) -> tuple[int, ...]:
    return tuple(sorted(batch for first, last, step in ranges for batch in range(first, last + 1, step)))
