"""The result of a harvest: the sum of its parts."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lit_attr.data.batch_ids import Ids
from lit_attr.errors import StorageError
from lit_attr.parts.generations import Generation, begun_generations, newest_generations
from lit_attr.parts.header import Header
from lit_attr.parts.history import recorded_provenance
from lit_attr.parts.plan import Plan
from lit_attr.parts.read_vectors import load_read_vectors
from lit_attr.parts.software import Software
from lit_attr.parts.union import counting_shards
from lit_attr.storage.batch_coverage import Coverage
from lit_attr.storage.harvested_metrics import HarvestedMetrics
from lit_attr.storage.result_form import ResultForm, result_nbytes
from lit_attr.storage.summed_blocks import SummedBlocks
from lit_attr.storage.write import write_result
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import PARTIAL_FILES, RESULT_FILES, STRONGEST_FILE

_AUTO = ResultForm()


def write_merged(
    generations: Sequence[Generation],
    header: Header,
    parts: Mapping[str, Sums],
    ids: Ids,
    software: Iterable[Software],
    form: ResultForm = _AUTO,
    normalising: Sequence[str] | None = None,
) -> Path:
    """Write the result of a harvest; a result that lacks batches gets a name of its own.

    Args:
        generations: The newest of each target shard.
        header: What the parts share.
        parts: The sums by name, as for `write_result`.
        ids: The batches in them.
        software: The versions that they were computed by.
        form: What is written of them.
        normalising: Names of the parts whose normalisers count, those of one target shard; all by default.

    Returns:
        The written file.

    Raises:
        NumericalError: If a sum is not finite, or too large.
        StorageError: If it cannot be written, or the harvest was extended meanwhile.
    """
    folder, plan = generations[0].folder, generations[0].plan
    coverage = Coverage.of(ids, max(generation.n_batches for generation in generations))
    read = load_read_vectors(folder, header.topology, header.alive)
    if form.keep is not None and not coverage.complete:
        raise StorageError(f"{folder}: the strongest edges are kept of all batches, and some are missing: drop keep")
    check_form(folder, form)
    nbytes = result_nbytes(header.topology, plan.metrics, uncertainty=plan.squares_dtype is not None)
    is_dense = form.keep is None and form.is_dense(nbytes)
    dense, compact = RESULT_FILES if coverage.complete else PARTIAL_FILES
    path = folder / (dense if is_dense else compact)
    counted = list(parts.values()) if normalising is None else [parts[name] for name in normalising]
    n_abs_tokens = sum(int(part.n_abs_tokens) for part in counted) if plan.abs_share < 1 else None
    provenance = {
        **recorded_provenance(generations, header.provenance, software),
        **HarvestedMetrics(plan.metrics, plan.abs_share, n_abs_tokens).to_entries(),
        "n_tokens": sum(int(part.n_tokens) for part in counted),
        "coverage": coverage.to_mapping(),
    }
    not_extended = partial(_check_not_extended, folder, plan, coverage.n_batches)

    origin = parts, read, header.w_unembed, header.ci_threshold, provenance
    if form.keep is None:
        write_result(path, *origin, not_extended, normalising=normalising, is_dense=is_dense, dtype=form.dtype)
        return path
    from lit_attr.query.strongest_build import write_strongest  # who keeps all edges needs nothing of it

    blocks, path = SummedBlocks(*origin, normalising), folder / STRONGEST_FILE
    return write_strongest(blocks, path, form.keep, overwrite=True, check=not_extended)


def check_form(folder: Path, form: ResultForm) -> None:
    """Refuse to keep the strongest edges alone where an earlier result of all edges would be taken for the harvest's.

    Args:
        folder: The harvest's folder.
        form: What is to be written.

    Raises:
        StorageError: If there is one.
    """
    if form.keep is None:
        return
    if there := next((folder / name for name in RESULT_FILES if (folder / name).exists()), None):
        raise StorageError(
            f"{there} has all edges, and would be taken for the result: remove it, since it can be written again from "
            "the parts, or keep the strongest of it with `lit-attr export --to strongest`"
        )


def _check_not_extended(folder: Path, plan: Plan, n_batches: int) -> None:
    """Refuse to replace what may be the result of more batches."""
    newest = max(one.n_batches for one in newest_generations(folder, plan) if one is not None)
    if newest > n_batches:
        raise StorageError(
            f"{folder}: the harvest was extended to {newest} batches, the result of {n_batches} is not written: all "
            "that was committed is part of the larger one"
        )


def merge_harvest(folder: Path, form: ResultForm = _AUTO, *, allow_partial: bool = False) -> Path:
    """Merge the parts of a harvest; those of target shards, which hold the same batches, are united.

    Args:
        folder: The harvest's folder.
        form: What is written of the sums.
        allow_partial: Whether batches may be missing; the result then has a name of its own.

    Returns:
        The written file.

    Raises:
        NumericalError: If a part holds values that are not finite, or the sum is too large.
        StorageError: If a part is missing, damaged, foreign or counted twice, target shards are of other batches or
            data, or the result cannot be written.
    """
    begun, header = begun_generations(folder), Header.load(folder)
    remedy = None if allow_partial else "Let the workers finish, or write a partial result with --allow_partial"
    shards = counting_shards(begun, header, remedy=remedy)
    parts = {str(part.path): part.sums for shard in shards for part in shard.parts}
    if not parts:
        raise StorageError(f"{folder}: no worker has committed anything yet")
    software = [versions for shard in shards for part in shard.parts for versions in part.ledger.software]
    normalising = [str(part.path) for part in shards[0].parts]  # all shards have the same: those of one count
    return write_merged([s.generation for s in shards], header, parts, shards[0].ids, software, form, normalising)
