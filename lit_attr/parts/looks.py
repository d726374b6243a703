"""What was found whenever a harvest that may end early was looked at."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lit_attr.errors import StorageError
from lit_attr.files.json_file import publish_json, read_object
from lit_attr.parts.ledger import Count
from lit_attr.topology.words import LOOKS_FILE

_Share = Annotated[float, Field(gt=0, lt=1)]
_Error = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Look:
    """How far a harvest was settled after so many batches.

    Attributes:
        n_batches: Batches that were in the sums: the first so many.
        level: The share of intervals that hold what they are of, at this look.
        k: How many of the strongest sources of each target were told apart from the others.
        n_targets: Components that are targets, and had a source.
        n_separated: How many of them had such sources.
        relative_error: The median of standard error over magnitude, over these sources; None where none had one.
        share_asked: Share of the targets that must be separated for the harvest to end.
        error_asked: The relative error below which it ends as well.
    """

    n_batches: Annotated[int, Field(ge=1)]
    level: _Share
    k: Annotated[int, Field(ge=1)]
    n_targets: Count
    n_separated: Count
    relative_error: _Error | None
    share_asked: _Share
    error_asked: _Error

    @property
    def is_settled(self) -> bool:
        """Whether that is enough."""
        is_precise = self.relative_error is not None and self.relative_error < self.error_asked
        return is_precise or self.n_separated >= self.share_asked * self.n_targets > 0

    def __str__(self) -> str:
        error = "no source of theirs has a standard error yet"
        if self.relative_error is not None:
            error = f"the median error of such a source is {self.relative_error:.2g} of its value"
        return (
            f"after {self.n_batches:,} batches {self.n_separated:,} of {self.n_targets:,} targets have their {self.k} "
            f"strongest sources told apart from all others ({self.share_asked:.0%} are asked), and {error} "
            f"(below {self.error_asked:g} is asked)"
        )

    def entries(self) -> dict[str, Any]:
        """What a result records of it, in plain types."""
        return asdict(self)


@dataclass(frozen=True)
class _Stored:
    looks: list[Look] = field(default_factory=list)


def read_looks(folder: Path) -> list[Look]:
    """The looks at a harvest, in their order; none where it may not end early.

    Args:
        folder: The harvest's folder.

    Raises:
        StorageError: If their file is damaged.
    """
    path = folder / LOOKS_FILE
    if not path.exists():
        return []
    try:
        looks = read_object(path, _Stored).looks
    except StorageError as error:
        raise StorageError(f"{error}; without this file the harvest is looked at anew") from error
    if odd := next((look for look in looks if look.n_separated > look.n_targets), None):
        raise StorageError(
            f"{path} is damaged: expected at most {odd.n_targets} separated targets, found {odd.n_separated}; without "
            "this file the harvest is looked at anew"
        )
    return looks


def record_look(folder: Path, look: Look) -> None:
    """Write down a look, in place of those at as many batches or more.

    Args:
        folder: The harvest's folder.
        look: What was found.

    Raises:
        StorageError: If it cannot be written.
    """
    earlier = [one for one in read_looks(folder) if one.n_batches < look.n_batches]
    publish_json(folder / LOOKS_FILE, {"looks": [one.entries() for one in (*earlier, look)]}, replace=True)
