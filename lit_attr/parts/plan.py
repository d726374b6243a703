"""What a harvest is: everything that decides its numbers, but not where or how fast it runs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from lit_attr.data.batch_ids import MAX_BATCHES
from lit_attr.errors import StorageError
from lit_attr.files.json_file import publish_json, read_object
from lit_attr.topology.words import PLAN_FILE, Harvested

# 2: `software`. 3: parts whose sums of `attr` are in read space. 4: parts with rows for live sources alone.
# 5: parts with squares, and the order of rows.
_FORMAT = 5


@dataclass(frozen=True)
class Plan:
    """A harvest's plan.

    Attributes:
        entries: Name to value, in plain types: weights, data, batch size, targets, precision.
        n_batches: How many batches it had when it began; the one thing that may grow.
        job: The scheduler's job that began it; None without one.
        software: Name to version of what decides the numbers, see `lit_attr.parts.software`; None if it is not known.
    """

    entries: Mapping[str, Any]
    n_batches: Annotated[int, Field(ge=1, le=MAX_BATCHES)]
    job: str | None = None
    software: Mapping[str, str] | None = None

    @property
    def metrics(self) -> Harvested:
        """Which metrics are summed."""
        return "attr" if self.entries.get("metrics") == "attr" else "both"

    @property
    def abs_share(self) -> float:
        """Share of the sequences whose `attr_abs` is summed."""
        return float(self.entries.get("abs_share", 1.0))

    @property
    def squares_dtype(self) -> torch.dtype | None:
        """Floating-point type of the squares that standard errors come from; None where they are not harvested."""
        if not self.entries.get("uncertainty"):
            return None
        return torch.float64 if self.entries.get("precision") == "64-true" else torch.float32

    @property
    def target_shards(self) -> int:
        """Among how many shards its targets are dealt out."""
        return int(self.entries.get("target_shards", 1))

    @property
    def digest(self) -> str:
        """SHA-256 of the entries, in hexadecimal."""
        return hashlib.sha256(json.dumps(dict(self.entries), sort_keys=True).encode()).hexdigest()

    def differences(self, entries: Mapping[str, Any]) -> list[str]:
        """In which entries others differ, with both values."""
        return [
            f"{name}: the harvest has {self.entries.get(name)!r}, this command {entries.get(name)!r}"
            for name in {**self.entries, **entries}
            if self.entries.get(name) != entries.get(name)
        ]

    def publish(self, folder: Path) -> None:
        """Write the plan of a new harvest.

        Raises:
            FileExistsError: If the folder has one already.
            StorageError: If it cannot be written.
        """
        publish_json(folder / PLAN_FILE, {"format": _FORMAT, **asdict(self)}, replace=False)

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read the plan of a harvest's folder.

        Raises:
            StorageError: If there is none, it is damaged, or another version's.
        """
        stored = read_object(folder / PLAN_FILE, _Stored)
        if stored.format != _FORMAT:
            raise StorageError(
                f"{folder / PLAN_FILE}: expected a harvest in format {_FORMAT}, found {stored.format}, whose sums are "
                "kept otherwise: continue and merge it with the version of lit_attr that began it"
            )
        return cls(stored.entries, stored.n_batches, stored.job, stored.software)


@dataclass(frozen=True)
class _Stored(Plan):
    format: int = 1
