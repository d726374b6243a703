"""Token data: a memory-mapped file, cut into batches that are addressed by a global id."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lit_attr.errors import ConfigurationError, DataError

WHOLE_DATASET: Literal["whole_dataset"] = "whole_dataset"
# Rows that go into a fingerprint, evenly spaced.
_FINGERPRINT_ROWS = 1024


class TokenBatch(NamedTuple):
    """One batch, or an empty one where a process has fewer than the others.

    Attributes:
        batch_id: Global id; -1 for an empty batch.
        tokens: Token ids.
    """

    batch_id: int
    tokens: Int[Tensor, "batch seq"]


class TokenDataModule(LightningDataModule):
    """Batches of token sequences, sharded over processes.

    Batch i holds rows `i * batch_size` to `(i + 1) * batch_size` of the file, however many processes there are; process
    r of w takes the batches with `i % w == r`. All processes take the same number of steps, the last of them empty
    where the batches do not divide. `setup` runs on every process; the file is read as it is needed.

    Args:
        tokens: A .npy file of token ids, n_sequences x seq_len, of any integer dtype.
        batch_size: Sequences in a batch; the last batch may have fewer.
        n_batches: Batches to harvest, counted over all processes, or `whole_dataset`; no more than the file holds.

    Raises:
        ConfigurationError: If a number is not positive.
    """

    def __init__(
        self, tokens: str | Path, batch_size: int = 32, n_batches: int | Literal["whole_dataset"] = WHOLE_DATASET
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigurationError(f"data.batch_size must be at least 1, found {batch_size}")
        if n_batches != WHOLE_DATASET and n_batches < 1:
            raise ConfigurationError(f"data.n_batches must be at least 1, or {WHOLE_DATASET!r}, found {n_batches}")
        self.save_hyperparameters()
        self.batch_size = batch_size
        self._rows: np.ndarray | None = None

    def setup(self, stage: str = "predict") -> None:
        """Open the file.

        Args:
            stage: As Lightning names it.

        Raises:
            DataError: If the file is missing, damaged, empty, or holds something else.
        """
        self._rows = open_tokens(Path(self.hparams["tokens"]))

    @property
    def rows(self) -> np.ndarray:
        """All sequences of the file, memory-mapped; after `setup`."""
        if self._rows is None:
            self.setup()
        if self._rows is None:
            raise DataError("token data is not open")
        return self._rows

    @property
    def seq_len(self) -> int:
        """Tokens in a sequence."""
        return self.rows.shape[1]

    @property
    def n_batches(self) -> int:
        """Batches of the harvest, over all processes."""
        in_file = -(-len(self.rows) // self.batch_size)
        wanted = self.hparams["n_batches"]
        return in_file if wanted == WHOLE_DATASET else min(wanted, in_file)

    def batch(self, batch_id: int) -> Int[Tensor, "batch seq"]:
        """The token ids of a batch: a function of its id and the file alone.

        Args:
            batch_id: From 0 to `n_batches - 1`.

        Raises:
            DataError: If there is no such batch.
        """
        if not 0 <= batch_id < self.n_batches:
            raise DataError(f"no batch {batch_id}: the harvest has batches 0 to {self.n_batches - 1}")
        start = batch_id * self.batch_size
        return torch.from_numpy(self.rows[start : start + self.batch_size].astype(np.int64))

    def fingerprint(self) -> str:
        """SHA-256 over shape, dtype and up to 1,024 evenly spaced rows of the file, in hexadecimal."""
        sampled = np.unique(np.linspace(0, len(self.rows) - 1, _FINGERPRINT_ROWS).astype(np.int64))
        digest = hashlib.sha256(f"{self.rows.shape} {self.rows.dtype.str}\n".encode())
        digest.update(np.ascontiguousarray(self.rows[sampled]).data)
        return digest.hexdigest()

    def predict_dataloader(self) -> "BatchStream":
        """The batches of this process."""
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return BatchStream(self, rank, world_size)


class BatchStream:
    """The batches of one process, in order.

    It yields whole batches and is no DataLoader, so that Lightning neither shards nor rebatches it.

    Args:
        data: Where batches come from.
        rank: Of the process.
        world_size: Number of processes.
    """

    def __init__(self, data: TokenDataModule, rank: int, world_size: int) -> None:
        self.data = data
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-self.data.n_batches // self.world_size)

    def __iter__(self) -> Iterator[TokenBatch]:
        for step in range(len(self)):
            batch_id = step * self.world_size + self.rank
            if batch_id < self.data.n_batches:
                yield TokenBatch(batch_id, self.data.batch(batch_id))
            else:
                yield TokenBatch(-1, torch.empty(0, self.data.seq_len, dtype=torch.int64))


def open_tokens(path: Path) -> np.ndarray:
    """Memory-map a file of token sequences.

    Raises:
        DataError: If the file is missing, damaged, empty, or holds something else.
    """
    if not path.is_file():
        raise DataError(f"no token file at {path}: expected a .npy file of shape (n_sequences, seq_len)")
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"cannot read {path} as a .npy file, it may be truncated: {error}") from error
    if not isinstance(rows, np.ndarray):
        rows.close()
        raise DataError(f"{path}: expected one array (.npy), found an archive of several (.npz)")
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.integer):
        raise DataError(
            f"{path}: expected integers of shape (n_sequences, seq_len), found {rows.dtype} of shape {rows.shape}"
        )
    if rows.size == 0:
        raise DataError(f"{path}: no tokens, its shape is {rows.shape}")
    return rows


def check_batch(batch: TokenBatch, vocab_size: int, block_size: int) -> None:
    """Check that a batch belongs to the model.

    Raises:
        DataError: If a token id is outside the vocabulary, or sequences are longer than the context.
    """
    if batch.tokens.shape[1] > block_size:
        raise DataError(
            f"batch {batch.batch_id}: sequences of {batch.tokens.shape[1]} tokens are longer than the model's context "
            f"of {block_size}"
        )
    outside = (batch.tokens < 0) | (batch.tokens >= vocab_size)
    if outside.any():
        row, position = outside.nonzero()[0].tolist()
        raise DataError(
            f"batch {batch.batch_id}, row {row}, position {position}: token id {int(batch.tokens[row, position])} is "
            f"outside the model's vocabulary (0 to {vocab_size - 1}); was the data made with another tokenizer?"
        )
