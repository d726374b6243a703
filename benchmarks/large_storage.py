"""A made-up result of a realistic large shape, written tile by tile: every byte is real, memory stays small."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lit_attr.files.archive import blank, lay_out, layout, offset_of
from lit_attr.files.publish import publish
from lit_attr.files.seal import digest_of, trailer

_CHUNK = 1 << 22
_N_TOKENS_OF_ONE = 20


def write_large_storage(path: Path, n_components: int, n_blocks: int, vocab: int, d_model: int) -> int:
    """Write the result of a LlamaSimpleMLP-like model whose matrices are all decomposed.

    Args:
        path: Path of the file.
        n_components: Number of components of each matrix.
        n_blocks: Number of blocks of the model.
        vocab: Number of token ids.
        d_model: Width of the residual stream.

    Returns:
        Size of the file in bytes.
    """
    skeleton = _skeleton(n_components, n_blocks, vocab, d_model)

    def write(file: BinaryIO) -> None:
        length = lay_out(skeleton, file)
        generator = torch.Generator().manual_seed(0)
        for name, empty in _tensors(layout(file)):
            itemsize = empty.element_size()
            for start in range(0, empty.numel(), _CHUNK):
                numbers = _numbers(name, min(_CHUNK, empty.numel() - start), generator)
                file.seek(offset_of(empty) + start * itemsize)
                file.write(numbers.numpy().data)
        file.flush()
        digest = digest_of(file, length)
        file.seek(length)
        file.write(trailer(digest))

    publish(path, write)
    return path.stat().st_size


def _numbers(name: str, count: int, generator: torch.Generator) -> Tensor:
    if name == "embed_token_count":
        return torch.full((count,), _N_TOKENS_OF_ONE)
    values = torch.randn(count, generator=generator)
    if "attr" in name or name == "w_unembed":
        return values.pow_(3)  # heavy tails, as real attributions have
    return values.abs_().add_(0.1)


def _skeleton(n_components: int, n_blocks: int, vocab: int, d_model: int) -> dict[str, Any]:
    matrices = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.up", "mlp.down")
    layers = [f"{block}.{matrix}" for block in range(n_blocks) for matrix in matrices]
    writers = [layer for layer in layers if layer.endswith(("attn.o", "mlp.down"))]
    sources = {layer: _sources(layer, writers) for layer in layers}
    readers = [layer for layer in layers if layer.endswith(("attn.q", "attn.k", "attn.v", "mlp.up"))]
    size = n_components

    def numbers(*shape: int) -> Tensor:
        return blank(shape, torch.float32)

    def regular() -> dict[str, Any]:
        return {t: {s: numbers(size, size) for s in feeding} for t, feeding in sources.items()}

    return {
        "regular_attr": regular(),
        "regular_attr_abs": regular(),
        "embed_attr": {layer: numbers(size, vocab) for layer in readers},
        "embed_attr_abs": {layer: numbers(size, vocab) for layer in readers},
        "unembed_attr": {layer: numbers(d_model, size) for layer in writers},
        "embed_unembed_attr": numbers(d_model, vocab),
        "w_unembed": numbers(d_model, vocab),
        "ci_sum": {layer: numbers(size) for layer in layers},
        "component_act_sq_sum": {layer: numbers(size) for layer in layers},
        "logit_sq_sum": numbers(vocab),
        "embed_token_count": blank((vocab,), torch.int64),
        "ci_threshold": 0.0,
        "n_tokens_processed": _N_TOKENS_OF_ONE * vocab,
        "provenance": None,
    }


def _sources(target: str, writers: list[str]) -> list[str]:
    block, _, matrix = target.partition(".")
    if matrix == "attn.o":
        return [f"{block}.attn.{name}" for name in "qkv"]
    if matrix == "mlp.down":
        return [f"{block}.mlp.up"]
    return [w for w in writers if int(w.split(".")[0]) < int(block) or (matrix == "mlp.up" and w == f"{block}.attn.o")]


def _tensors(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield prefix + key, value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{key}/")
