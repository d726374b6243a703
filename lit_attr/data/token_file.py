"""Token files (.npy), batches of tokens, and whether a batch belongs to a model."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from torch import Tensor

from lit_attr.assets import ASSETS, DEMO, TOKENS
from lit_attr.errors import DataError, reason

# First bytes of files, and what numpy has no name for.
_NUMPY, _PICKLE, _ZIP = b"\x93NUMPY", b"\x80", b"PK"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_TORCH = "a file of torch.save: numpy.save(file, tensor.numpy()) writes what is needed"


class TokenBatch(NamedTuple):
    """One batch, or an empty one where a process has fewer than the others.

    Attributes:
        batch_id: Global id; -1 for an empty batch.
        tokens: Token ids of the batch's rows.
    """

    batch_id: int
    tokens: Int[Tensor, "batch seq"]


def token_path(tokens: Path) -> Path:
    """The file that a user names: `demo` stands for the demo's stories."""
    return ASSETS / TOKENS if str(tokens) == DEMO else tokens


def open_tokens(path: Path) -> np.ndarray:
    """Memory-map a file of token sequences.

    Args:
        path: The file.

    Raises:
        DataError: If the file is missing, damaged, empty, or holds something else.
    """
    if not path.is_file():
        raise DataError(f"no token file at {path}: expected a .npy file of shape (n_sequences, seq_len)")
    try:
        _check_header(path)
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises many kinds for a damaged header, which it reads as Python
        if (kind := _other_kind(path)) is not None:
            raise DataError(f"{path}: expected a .npy file, found {kind}") from error
        raise DataError(f"cannot read {path} as a .npy file, it may be truncated: {reason(error)}") from error
    if not isinstance(rows, np.ndarray):
        names = rows.files
        rows.close()
        if any(name.endswith("/data.pkl") for name in names):
            raise DataError(f"{path}: expected a .npy file, found {_TORCH}")
        raise DataError(f"{path}: expected one array (.npy), found an archive of several (.npz)")
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.integer):
        raise DataError(
            f"{path}: expected integers of shape (n_sequences, seq_len), found {rows.dtype} of shape {rows.shape}"
        )
    if rows.size == 0:
        raise DataError(f"{path}: no tokens, its shape is {rows.shape}")
    return rows


def _check_header(path: Path) -> None:
    """Refuse sizes below zero and entries without bytes, of which numpy's division ends the process."""
    with open(path, "rb") as file:
        if file.read(len(_NUMPY)) != _NUMPY:
            return
        file.seek(0)
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"expected a header of version 1 or 2, found {version}")
        shape, _, dtype = _HEADERS[version](file)
    if dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise ValueError(f"its header declares entries of type {dtype} and shape {shape}")


def _other_kind(path: Path) -> str | None:
    """What a file is, if it is none of numpy's; None if it may be a damaged one of those."""
    with open(path, "rb") as file:
        start = file.read(len(_NUMPY))
    if start.startswith(_PICKLE):
        return _TORCH
    return None if _NUMPY.startswith(start) or start.startswith(_ZIP) else f"one that begins with {start!r}"


def check_batch(batch: TokenBatch, vocab_size: int, block_size: int) -> None:
    """Check that a batch belongs to the model.

    Raises:
        DataError: If a token id is outside the vocabulary, or sequences are longer than the context.
    """
    check_length(batch.tokens.shape[1], block_size)
    check_ids(batch.tokens, vocab_size, lambda row: (batch.batch_id, row))


def check_length(seq_len: int, block_size: int) -> None:
    """Check that the model can read sequences of a length.

    Raises:
        DataError: If they are longer than its context.
    """
    if seq_len > block_size:
        raise DataError(f"sequences of {seq_len} tokens are longer than the model's context of {block_size}")


def check_ids(tokens: Int[Tensor, "row seq"], vocab_size: int, place: Callable[[int], tuple[int, int]]) -> None:
    """Check that token ids are in the model's vocabulary.

    Args:
        tokens: Token ids.
        vocab_size: Number of ids that the model knows.
        place: Batch id of a row, and its number there, for the message.

    Raises:
        DataError: If one is not.
    """
    outside = (tokens < 0) | (tokens >= vocab_size)
    if outside.any():
        row, position = outside.nonzero()[0].tolist()
        batch_id, row_there = place(row)
        raise DataError(
            f"batch {batch_id}, row {row_there}, position {position}: token id {int(tokens[row, position])} is outside "
            f"the model's vocabulary (0 to {vocab_size - 1}); was the data made with another tokenizer?"
        )
