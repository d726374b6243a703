"""Is a result what it says? Digests, shapes, metrics, coverage, finiteness, rounding."""

import math
import os
from pathlib import Path

import torch

from lit_attr.data.batch_ids import show
from lit_attr.errors import StorageError, naming
from lit_attr.files.publish import reading
from lit_attr.files.seal import check_open_seal, is_sealed
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.fill import leaves
from lit_attr.storage.rounding import ROUNDED_KEYS, Rounding
from lit_attr.storage.standard_errors import TO_OUTPUT
from lit_attr.storage.strongest_file import StrongestFile, is_strongest
from lit_attr.topology.sums import CHUNK

# Numbers of groups are rounded to float32.
_ROUNDING = 1e-6
# How an archive ends: a record of this length, without a comment.
_ARCHIVE_END, _ARCHIVE_END_LENGTH = b"PK\x05\x06", 22


def verify(path: Path) -> list[str]:
    """Check everything that can be checked of a file by itself.

    Args:
        path: The file of a result, in either form, or of its strongest edges alone.

    Returns:
        What is in order, and what could not be checked, a line each.

    Raises:
        StorageError: If anything is wrong.
    """
    if not os.path.isfile(path):
        raise StorageError(f"no result at {path}")
    lines = [_digest(path)]
    storage = DatasetAttributionStorage.load(path)  # checks keys, nesting and shapes
    lines.append(f"shapes: {sum(1 for _ in storage.named_sums())} sums belong together{_form(storage)}")
    for name, tensor in [*storage.named_sums(), ("w_unembed", storage.w_unembed)]:
        if tensor.is_meta:  # its strongest edges were checked with their records
            continue
        if tensor.is_floating_point() and not all(bool(c.isfinite().all()) for c in tensor.reshape(-1).split(CHUNK)):
            raise StorageError(f"{path}: {name} has entries that are not finite")
    lines.append("finite: all entries")
    if storage.rounding is not None:
        lines.append(_rounding(path, storage, storage.rounding))
    lines.append(_errors(path, storage))
    counted = int(storage.embed_token_count.sum(dtype=torch.int64))
    if counted != storage.n_tokens_processed:
        raise StorageError(f"{path}: {storage.n_tokens_processed} tokens in all, but {counted} counted one by one")
    lines.append(f"tokens: {counted}, as counted one by one")
    lines.append(_metrics(path, storage))
    lines.append(f"written by: {_software(storage)}")
    lines.append(_coverage(path, storage))
    return lines


def _rounding(path: Path, storage: DatasetAttributionStorage, rounding: Rounding) -> str:
    for name, tensor in storage.named_sums():
        if tensor.is_meta or not name.startswith(ROUNDED_KEYS) or tensor.dtype == torch.bfloat16:
            continue
        if not all(torch.equal(c, c.bfloat16().to(c.dtype)) for c in tensor.reshape(-1).split(CHUNK)):
            raise StorageError(f"{path}: expected numbers that were rounded to bfloat16 in {name}, found others")
    return f"rounding: {rounding}"


def _errors(path: Path, storage: DatasetAttributionStorage) -> str:
    """Standard errors are finite and not negative, and no source occurred in more groups than there were."""
    errors = storage.standard_errors
    if errors is None:
        return "standard errors: none"
    by_kind = {str(kind): n for kind, n in errors.n_all_groups.items()}
    for name, tensor in leaves(errors.to_entry() if storage.holds_edges else {"n_groups": errors.n_groups}):
        key, _, rest = name.partition("[")
        most = by_kind[rest.partition("]")[0]] if key == "n_groups" else math.inf
        least = -math.inf if key in TO_OUTPUT else 0.0
        for piece in tensor.reshape(-1).split(CHUNK) if tensor.numel() else ():
            if not piece.isfinite().all() or piece.min() < least or piece.max() > most * (1 + _ROUNDING):
                raise StorageError(
                    f"{path}: standard_errors: {name}: expected finite numbers from {least:g} to {most:g}, found others"
                )
    groups = ", ".join(f"{n:,} of {kind}" for kind, n in errors.n_all_groups.items())
    return f"standard errors: finite, from groups: {groups}; rows in {storage.error_basis}"


def _form(storage: DatasetAttributionStorage) -> str:
    if storage.live is None:
        return ""
    sides = {"sources": storage.live.sources, "targets": storage.live.targets}
    live = (
        f"{sum(map(len, ids.values())):,} of {sum(map(storage.layer_size, ids)):,} {side}"
        for side, ids in sides.items()
    )
    return f"; compact form: {' and '.join(live)} have a place, all others are zero or were no targets"


def _digest(path: Path) -> str:
    if is_strongest(path):
        lists = StrongestFile(path)
        return f"strongest edges alone, {lists.k} of each list: check sums of {lists.check_all():,} records agree"
    with reading(path) as file:
        if is_sealed(file):
            return f"digest: sha256 {check_open_seal(file, path)}"
        end = max(os.fstat(file.fileno()).st_size - _ARCHIVE_END_LENGTH, 0)
        if os.pread(file.fileno(), len(_ARCHIVE_END), end) != _ARCHIVE_END:
            raise StorageError(f"{path} is damaged: it ends neither as an archive does, nor in a seal")
    return "digest: none, the file was written by another tool or version"


def _metrics(path: Path, storage: DatasetAttributionStorage) -> str:
    with naming(path):
        if "attr_abs" not in storage.metrics:
            return f"metrics: attr alone; {storage.recorded.harvested_metrics.why_no_abs}"
        sample = storage.sample("attr_abs")
    return "metrics: attr and attr_abs" if sample is None else f"metrics: attr; {sample}"


def _software(storage: DatasetAttributionStorage) -> str:
    by = storage.recorded.software
    return "; ".join(", ".join(f"{name} {version}" for name, version in each.items()) for each in by) or "not recorded"


def _coverage(path: Path, storage: DatasetAttributionStorage) -> str:
    with naming(path):
        coverage = storage.recorded.coverage
        if coverage is None:
            return "coverage: not recorded, the file was written by another tool or version"
        missing = coverage.missing()
    if len(missing):
        return f"coverage: PARTIAL, of {coverage.n_batches} batches {show(missing)} are missing"
    return f"coverage: all {coverage.n_batches} batches"
