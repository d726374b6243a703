"""The result of a harvest: the sum of its parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_attr.errors import StorageError
from lit_attr.parts.gather import gather
from lit_attr.parts.header import Header
from lit_attr.storage.write import write_result
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import MERGED_FILE, PARTIAL_FILE


def write_merged(path: Path, parts: Sequence[Sums], frame: Header, coverage: Mapping[str, Any]) -> None:
    """Write the result of a harvest.

    Args:
        path: Of the file.
        parts: Sums, as for `write_result`.
        frame: What the parts share.
        coverage: What the result covers; becomes a part of its provenance.

    Raises:
        StorageError: If it cannot be written.
    """
    n_tokens = sum(int(part.n_tokens) for part in parts)
    provenance = {**frame.provenance, "n_tokens": n_tokens, "coverage": dict(coverage)}
    write_result(path, parts, frame.w_unembed, frame.ci_threshold, provenance)


def merge_harvest(folder: Path, allow_partial: bool = False) -> Path:
    """Merge the parts of a harvest.

    Args:
        folder: Of the harvest.
        allow_partial: Whether batches may be missing; the result then has a name of its own.

    Returns:
        The written file.

    Raises:
        StorageError: If a part is missing, damaged, foreign or counted twice, or the result cannot be written.
    """
    frame = Header.load(folder)
    gathered = gather(folder, frame.topology, allow_partial)
    if not gathered.sums:
        raise StorageError(f"{folder}: no worker has committed anything yet")
    path = folder / (PARTIAL_FILE if len(gathered.missing) else MERGED_FILE)
    write_merged(path, gathered.sums, frame, gathered.coverage())
    return path
