"""The result of a harvest: the sum of its parts."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from lit_attr.data.batch_ids import Ids, union
from lit_attr.errors import StorageError
from lit_attr.parts.counting import check_nothing_missing, counting_parts
from lit_attr.parts.generations import Generation, begun_generation, newest_generation
from lit_attr.parts.header import Header
from lit_attr.parts.history import recorded_provenance
from lit_attr.parts.read_vectors import load_read_vectors
from lit_attr.parts.software import Software
from lit_attr.storage.batch_coverage import Coverage
from lit_attr.storage.harvested_metrics import HarvestedMetrics
from lit_attr.storage.write import write_result
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import MERGED_FILE, PARTIAL_FILE


def write_merged(
    generation: Generation, header: Header, parts: Mapping[str, Sums], ids: Ids, software: Iterable[Software]
) -> Path:
    """Write the result of a harvest; a result that lacks batches gets a name of its own.

    Args:
        generation: The newest of the harvest.
        header: What the parts share.
        parts: The sums by name, as for `write_result`.
        ids: The batches in them.
        software: The versions that they were computed by.

    Returns:
        The written file.

    Raises:
        NumericalError: If a sum is not finite, or too large.
        StorageError: If it cannot be written, or the harvest was extended meanwhile.
    """
    coverage = Coverage.of(ids, generation.n_batches)
    path = generation.folder / (MERGED_FILE if coverage.complete else PARTIAL_FILE)
    plan, read = generation.plan, load_read_vectors(generation.folder, header.topology, header.alive)
    n_abs_tokens = sum(int(part.n_abs_tokens) for part in parts.values()) if plan.abs_share < 1 else None
    provenance = {
        **recorded_provenance(generation, header.provenance, software),
        **HarvestedMetrics(plan.metrics, plan.abs_share, n_abs_tokens).to_entries(),
        "n_tokens": sum(int(part.n_tokens) for part in parts.values()),
        "coverage": coverage.to_mapping(),
    }
    not_extended = partial(_check_not_extended, generation)
    write_result(path, parts, read, header.w_unembed, header.ci_threshold, provenance, not_extended)
    return path


def _check_not_extended(generation: Generation) -> None:
    """Refuse to replace what may be the result of more batches."""
    newest = newest_generation(generation.folder, generation.plan)
    if newest is not None and newest.n_batches > generation.n_batches:
        raise StorageError(
            f"{generation.folder}: the harvest was extended to {newest.n_batches} batches, the result of "
            f"{generation.n_batches} is not written: all that was committed is part of the larger one"
        )


def merge_harvest(folder: Path, *, allow_partial: bool = False) -> Path:
    """Merge the parts of a harvest.

    Args:
        folder: The harvest's folder.
        allow_partial: Whether batches may be missing; the result then has a name of its own.

    Returns:
        The written file.

    Raises:
        NumericalError: If a part holds values that are not finite, or the sum is too large.
        StorageError: If a part is missing, damaged, foreign or counted twice, or the result cannot be written.
    """
    generation, header = begun_generation(folder), Header.load(folder)
    parts = list(counting_parts(generation, header.layout(generation.plan.metrics)))
    ids = union(part.ids for part in parts)
    if not allow_partial:
        remedy = "Let the workers finish, or write a partial result with --allow_partial"
        check_nothing_missing(generation, ids, remedy)
    if not parts:
        raise StorageError(f"{folder}: no worker has committed anything yet")
    software = [versions for part in parts for versions in part.ledger.software]
    return write_merged(generation, header, {str(part.path): part.sums for part in parts}, ids, software)
