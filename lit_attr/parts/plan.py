"""What a harvest is: everything that decides its numbers, but not where or how fast it runs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_attr.errors import StorageError
from lit_attr.files.json_file import publish_json, read_json
from lit_attr.topology.words import PLAN_FILE

_FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """A harvest's plan.

    Attributes:
        entries: Name to value, in plain types: weights, data, batch size, targets, precision.
        n_batches: How many batches it had when it began; the one thing that may grow.
        job: The scheduler's job that began it; None without one.
    """

    entries: Mapping[str, Any]
    n_batches: int
    job: str | None = None

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
        content = {"format": _FORMAT, "entries": dict(self.entries), "n_batches": self.n_batches, "job": self.job}
        publish_json(folder / PLAN_FILE, content, replace=False)

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read the plan of a harvest's folder.

        Raises:
            StorageError: If there is none, or it is damaged.
        """
        content = read_json(folder / PLAN_FILE)
        if content.get("format") != _FORMAT:
            raise StorageError(f"{folder / PLAN_FILE}: expected format {_FORMAT}, found {content.get('format')!r}")
        try:
            return cls(content["entries"], int(content["n_batches"]), content["job"])
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{folder / PLAN_FILE} is damaged: {error!r}") from error
