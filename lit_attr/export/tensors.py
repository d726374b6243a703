"""Safetensors: all tensors of a result in shards, with an index of which is where.

The layout is that of the format's description: the header's length in eight bytes, the header in JSON, the numbers. It
is written here, since the library's writer takes whole files of tensors that are in memory.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.export.description import describe
from lit_attr.files.archive import bytes_of
from lit_attr.files.output import Product, new_folder
from lit_attr.files.publish import publish
from lit_attr.storage.file_content import Content
from lit_attr.storage.fill import leaves

INDEX_FILE = "dataset_attributions.safetensors.index.json"
_LAYOUT = "lit_attr.dataset_attributions"
_PRODUCT = Product("tensors of lit-attr export", b"", f'"format": "{_LAYOUT}"'.encode())
_SHARD = "dataset_attributions-{number:05}-of-{count:05}.safetensors"
_DTYPES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    torch.int64: "I64",
}
_ALIGNMENT = 8
_MB = 10**6
# Numbers that are written at once: bounds what is copied, 32 MB in float64.
_TILE = 1 << 22
_Named = tuple[str, Tensor]


def export_safetensors(
    content: Content, folder: Path, *, shard_mb: float = 1000, overwrite: bool = False
) -> list[Path]:
    """Write a result as sharded safetensors, in memory that does not grow with it.

    Tensors are named `regular_attr/<target>/<source>`, `embed_attr/<target>`, `unembed_attr/<source>`,
    `ci_sum/<layer>`, `w_unembed` and so on, after the keys of `dataset_attributions.pt`. As there, rows of components
    that were no targets are zero, and not measured: the metadata's provenance lists them under `not_targets`. There are
    no tensors of a metric that was not harvested. Standard errors, where there are some, are named as the sums, behind
    `standard_errors/`; the metadata's `n_all_groups` has the numbers of all groups by kind of edges. A result in the
    compact form stays in it: `live/sources/<layer>` and `live/targets/<layer>` have the components, or
    token ids, of its columns and rows.

    Args:
        content: What is exported.
        folder: Folder of the shards and their index; it must not exist, unless it is replaced.
        shard_mb: Megabytes of a shard at most; a larger tensor has a shard of its own.
        overwrite: Whether an earlier export may be replaced.

    Returns:
        The written files, the index first.

    Raises:
        ConfigurationError: If `shard_mb` is not positive.
        NotHeldError: If the result holds its strongest edges alone.
        StorageError: If the folder exists already, or cannot be written.
    """
    if not shard_mb > 0:
        raise ConfigurationError(f"shard_mb must be positive, found {shard_mb}")
    content.check_holds_edges()
    metadata = describe(content, _LAYOUT)
    if content.standard_errors is not None:
        metadata["n_all_groups"] = json.dumps(dict(content.standard_errors.n_all_groups))
    shards = _shards(list(named_tensors(content)), shard_mb * _MB)
    names = [_SHARD.format(number=number, count=len(shards)) for number in range(1, len(shards) + 1)]
    total = sum(tensor.nbytes for shard in shards for _, tensor in shard)
    index = {
        "metadata": {"total_size": total, **metadata},
        "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name, _ in shard},
    }
    with new_folder(folder, INDEX_FILE, _PRODUCT, overwrite=overwrite) as temporary:
        for name, shard in zip(names, shards, strict=True):
            header = _header(shard, metadata)
            nbytes = len(header) + sum(tensor.nbytes for _, tensor in shard)
            publish(temporary / name, partial(_write, header, shard), reserve=nbytes)
        text = json.dumps(index, indent=2).encode()
        publish(temporary / INDEX_FILE, lambda file: file.write(text))
    return [folder / name for name in (INDEX_FILE, *names)]


def named_tensors(content: Content) -> Iterator[_Named]:
    """All tensors with the names that they have in the export."""
    errors = {} if content.standard_errors is None else {"standard_errors": content.standard_errors.to_entry()}
    for name, tensor in (*content.named_sums(), *leaves(errors)):
        yield name.replace("][", "/").replace("[", "/").removesuffix("]"), tensor
    yield "w_unembed", content.w_unembed
    for side, by_layer in (content.live.to_entry() if content.live else {}).items():
        yield from ((f"live/{side}/{layer}", ids) for layer, ids in by_layer.items())


def _shards(tensors: Sequence[_Named], limit: float) -> list[list[_Named]]:
    shards: list[list[_Named]] = [[]]
    size = 0
    for name, tensor in tensors:
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append((name, tensor))
        size += tensor.nbytes
    # Wide numbers first: then each begins at a multiple of its size, as mapped readers need it.
    return [sorted(shard, key=lambda named: -named[1].element_size()) for shard in shards]


def _header(shard: Sequence[_Named], metadata: dict[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, tensor in shard:
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write(header: bytes, shard: Sequence[_Named], file: BinaryIO) -> None:
    file.write(header)
    for _, tensor in shard:
        step = max(_TILE // max(tensor[:1].numel(), 1), 1)
        for rows in tensor.detach().split(step):
            file.write(bytes_of(rows.cpu().contiguous()))
