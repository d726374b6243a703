"""Is a stored harvest what it says? Digests, shapes, coverage, finiteness."""

from pathlib import Path

import torch

from lit_attr.errors import StorageError
from lit_attr.storage.ids import all_ids, from_ranges, show, without
from lit_attr.storage.seal import check_seal, is_sealed
from lit_attr.storage.storage import DatasetAttributionStorage
from lit_attr.storage.sums import CHUNK


def verify(path: Path) -> list[str]:
    """Check everything that can be checked of a file by itself.

    Args:
        path: Of a `dataset_attributions.pt`.

    Returns:
        What was found to be in order, and what could not be checked, a line each.

    Raises:
        StorageError: If anything is wrong.
    """
    if not path.is_file():
        raise StorageError(f"no stored harvest at {path}")
    lines = []
    if is_sealed(path):
        lines.append(f"digest: sha256 {check_seal(path)}")
    else:
        lines.append("digest: none, the file was written by another tool or version")
    storage = DatasetAttributionStorage.load(path)  # checks keys, nesting and shapes
    lines.append(f"shapes: {sum(1 for _ in storage.named_sums())} sums belong together")
    for name, tensor in storage.named_sums():
        if tensor.is_floating_point() and not all(bool(c.isfinite().all()) for c in tensor.reshape(-1).split(CHUNK)):
            raise StorageError(f"{path}: {name} has entries that are not finite")
    lines.append("finite: all entries")
    counted = int(storage.embed_token_count.sum(dtype=torch.int64))
    if counted != storage.n_tokens_processed:
        raise StorageError(f"{path}: {storage.n_tokens_processed} tokens in all, but {counted} counted one by one")
    lines.append(f"tokens: {counted}, as counted one by one")
    lines.append(_coverage(path, storage))
    return lines


def _coverage(path: Path, storage: DatasetAttributionStorage) -> str:
    known = (storage.provenance or {}).get("coverage")
    if known is None:
        return "coverage: not recorded, the file was written by another tool or version"
    missing = without(all_ids(known["n_batches"]), from_ranges(known["batches"]))
    if bool(len(missing)) == known["complete"]:
        raise StorageError(f"{path}: complete is {known['complete']}, but batches {show(missing)} are missing")
    if len(missing):
        return f"coverage: PARTIAL, of {known['n_batches']} batches {show(missing)} are missing"
    return f"coverage: all {known['n_batches']} batches"
