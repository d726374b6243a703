"""Batches of token sequences, addressed by a global id and sharded over processes."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_attr.data.batch_ids import Ids, all_ids
from lit_attr.data.cache import TokenCache
from lit_attr.data.row_check import check_rows
from lit_attr.data.row_order import OrderName, RowOrder, order_entries
from lit_attr.data.row_source import RowSource
from lit_attr.data.spec import DatasetOptions, DatasetSpec
from lit_attr.data.token_file import TokenBatch, check_length
from lit_attr.errors import ConfigurationError, DataError, StorageError
from lit_attr.files.roots import output_root, user_path
from lit_attr.harvest.postponed import Postponed
from lit_attr.harvest.sources import dataset_of_run

WHOLE_DATASET: Literal["whole_dataset"] = "whole_dataset"
_CACHES = "token_cache"


class TokenDataModule(LightningDataModule):
    """Batches of token sequences, sharded over processes.

    Batch i holds rows `i * batch_size` to `(i + 1) * batch_size` of the data in its order, however many processes there
    are; process r of w takes the batches with `i % w == r`. All processes take the same number of steps, the last of
    them empty where the batches do not divide.

    That order is a random one by default, a function of seed and number of rows alone: the first batches are a sample
    of all rows, however these are sorted, and stay what they are where a harvest is extended.

    The data is a token file, or the dataset that the run was trained on. `prepare_data` tokenizes a dataset into a
    cache under the output root, once: one process on each machine, the others wait. `setup` opens the data on every
    process; it is memory-mapped, and read as it is needed.

    Args:
        tokens: A .npy file of token ids, n_sequences x seq_len, of any integer dtype; or `demo`. Without it, the run's
            own dataset.
        batch_size: Sequences in a batch; the last batch may have fewer.
        n_batches: Batches to harvest, counted over all processes, or `whole_dataset`; no more than the data has.
        dataset: Changes to the run's own dataset; without a run, the dataset.
        run: The run whose dataset is used; on the command line it is the model's, if that was trained.
        rank: Number of this worker among independent ones; from 0.
        world_size: Number of independent workers, each a process by itself that knows nothing of the others. Processes
            that the trainer starts count by themselves.
        target_shards: Among how many shards the targets are dealt out, each of which goes through all batches with its
            own workers, and holds the sums of its own targets only. Fixed when a harvest begins.
        target_shard: Which shard this worker is of, from 0. None to deal the trainer's processes out over the shards,
            process r to shard `r % target_shards`.
        order: Order of the rows: `random`, or `file` for that of the token file, or that in which the run was trained
            on its dataset. None for `random`; but a dataset that is streamed has no order but its own, `file`.
        seed: Which random order, from 0: another one is another sample, where not all batches are harvested.

    Raises:
        ConfigurationError: If a number is not in its range, there is no such order, or neither tokens nor a run nor a
            dataset are given.
    """

    def __init__(
        self,
        tokens: str | Path | None = None,
        batch_size: int = 32,
        n_batches: int | Literal["whole_dataset"] = WHOLE_DATASET,
        dataset: DatasetOptions = DatasetOptions(),  # noqa: B008 - frozen
        run: str | Path | None = None,
        rank: int = 0,
        world_size: int = 1,
        target_shards: int = 1,
        target_shard: int | None = None,
        order: OrderName | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= rank < world_size:
            raise ConfigurationError(f"data.rank must be 0 to data.world_size - 1 = {world_size - 1}, found {rank}")
        if target_shards < 1:
            raise ConfigurationError(f"data.target_shards must be at least 1, found {target_shards}")
        if target_shard is not None and not 0 <= target_shard < target_shards:
            raise ConfigurationError(
                f"data.target_shard must be 0 to data.target_shards - 1 = {target_shards - 1}, found {target_shard}"
            )
        if world_size > 1 and target_shard is None and target_shards > 1:
            raise ConfigurationError(
                f"data.target_shards is {target_shards}, and an independent worker is of one shard: which one, says "
                f"--data.target_shard, from 0 to {target_shards - 1}"
            )
        if batch_size < 1:
            raise ConfigurationError(f"data.batch_size must be at least 1, found {batch_size}")
        if n_batches != WHOLE_DATASET and n_batches < 1:
            raise ConfigurationError(f"data.n_batches must be at least 1, or {WHOLE_DATASET!r}, found {n_batches}")
        if tokens is None and run is None and dataset.dataset_name is None:
            raise ConfigurationError(
                "neither data.tokens nor a run whose dataset could be used, which a decomposition without training has "
                "not: give --data.tokens FILE.npy, or --data.dataset.dataset_name and --data.dataset.tokenizer"
            )
        if tokens is not None and (changes := {k: v for k, v in asdict(dataset).items() if v is not None}):
            raise ConfigurationError(f"data.tokens and data.dataset both say what the data is: drop one of {changes}")
        self.save_hyperparameters(ignore=["run"])
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.target_shards = target_shards
        self._target_shard = target_shard
        self._tokens = None if tokens is None else user_path(tokens)
        self._order = RowOrder(order, seed)
        self._max_batches = None if n_batches == WHOLE_DATASET else n_batches
        # Not taken from hparams: there Lightning's command line keeps plain dictionaries.
        self._run = run
        self._dataset = dataset
        self._source: RowSource | None = None
        self._assigned: tuple[Ids, int, int] | None = None
        self._stream: BatchStream | None = None
        self._settled_with: int | None = None
        self._postponed = Postponed()

    @cached_property
    def spec(self) -> DatasetSpec | None:
        """The dataset, completely described; None for a token file."""
        if self._tokens is not None:
            return None
        if self._run is None:
            return DatasetSpec.resolve({}, self._dataset, None)
        return dataset_of_run(self._run, self._dataset)

    @cached_property
    def _seed(self) -> int | None:
        """The seed of a random order of rows; None for the order of the file."""
        return self._order.seed_for(self.spec)

    def order_entries(self) -> dict[str, Any]:
        """What a plan and a result record of the order of rows, see `lit_attr.data.row_order`."""
        return order_entries(self._seed, len(self.rows))

    def _cache(self, spec: DatasetSpec) -> TokenCache:
        return TokenCache(spec, output_root() / _CACHES)

    def prepare_data(self) -> None:
        """Tokenize as many rows as are needed, and compute their digest, where that is not done yet.

        A random order needs all of them.

        Raises:
            DataError: If the dataset or its tokenizer cannot be had, or is not as described.
            ConfigurationError: If a random order is asked for of a dataset that is streamed.
        """
        with self._postponed.with_others(self.trainer):
            self.prepare_batches(self._max_batches)

    def prepare_batches(self, n_batches: int | None) -> None:
        """Tokenize the rows of so many batches, and compute their digest; as `prepare_data` does.

        Args:
            n_batches: How many batches will be read; None for all.
        """
        n_rows = None if n_batches is None else n_batches * self.batch_size
        if self.spec is not None:
            self._cache(self.spec).prepare(n_rows if self._seed is None else None)
        with suppress(DataError, StorageError):  # `setup` says it, on every process
            source = self._open()
            source.remember_digest(len(source.rows) if n_rows is None else min(n_rows, len(source.rows)))

    def _open(self) -> RowSource:
        if self._tokens is not None:
            return RowSource.of_file(self._tokens, self._seed)
        if self.spec is None:
            raise DataError("token data is not open")
        return RowSource.of_cache(self._cache(self.spec), self._seed)

    def setup(self, stage: str = "predict") -> None:
        """Open the data.

        Args:
            stage: As Lightning names it.

        Raises:
            DataError: If a file is missing, damaged, empty, or holds something else.
        """
        self._settled_with = None
        with self._postponed.with_others(self.trainer):
            self._source = self._open()
            at_hand = self.n_batches_at_hand
            if self._max_batches is not None and self._max_batches > at_hand:
                rank_zero_info(
                    f"lit_attr: warning: data.n_batches is {self._max_batches}, but the data has {at_hand} batches of "
                    f"{self.batch_size} sequences: all of them are taken"
                )

    @property
    def _opened(self) -> RowSource:
        if self._source is None:
            self.setup()
        if self._source is None:
            raise DataError("token data is not open")
        return self._source

    @property
    def rows(self) -> np.ndarray:
        """All sequences of the data, as they lie in its file, memory-mapped; after `setup`."""
        return self._opened.rows

    @property
    def seq_len(self) -> int:
        """Tokens in a sequence."""
        return self.rows.shape[1]

    @property
    def n_batches_at_hand(self) -> int:
        """Batches of all the data that is open, of which the harvest may take fewer."""
        return -(-len(self.rows) // self.batch_size)

    @property
    def n_batches(self) -> int:
        """Batches of the harvest, over all processes."""
        there = self._settled_with or self.n_batches_at_hand
        return there if self._max_batches is None else min(self._max_batches, there)

    def shorten(self, n_batches: int) -> None:
        """Have no more batches than those with which the harvest was settled, until the next `setup`."""
        self._settled_with = n_batches

    def batch(self, batch_id: int) -> Int[Tensor, "batch seq"]:
        """The token ids of a batch: a function of its id and the data alone.

        Args:
            batch_id: From 0 to `n_batches_at_hand - 1`, also one that is not harvested.

        Raises:
            DataError: If there is no such batch.
        """
        if not 0 <= batch_id < self.n_batches_at_hand:
            raise DataError(f"no batch {batch_id}: the data has batches 0 to {self.n_batches_at_hand - 1}")
        start = batch_id * self.batch_size
        places = np.arange(start, min(start + self.batch_size, len(self.rows)))
        return self._tensor(places)

    @property
    def n_rows(self) -> int:
        """Sequences of the harvest, over all processes."""
        return min(self.n_batches * self.batch_size, len(self.rows))

    def _tensor(self, places: Int[np.ndarray, " row"]) -> Int[Tensor, "row seq"]:
        return torch.from_numpy(self._opened.read(places).astype(np.int64))

    def digest(self, n_batches: int) -> str:
        """SHA-256 of every row of the first batches, and of their number, length and dtype, in hexadecimal.

        Args:
            n_batches: Number of batches; all that there are, if it is larger.

        Raises:
            DataError: If the data was changed since it was opened.
        """
        return self._opened.digest(min(n_batches * self.batch_size, len(self.rows)))

    def check_unchanged(self) -> None:
        """Check that the data is what it was when it was opened.

        Raises:
            DataError: If its file was removed, replaced or changed.
        """
        self._opened.check_unchanged()

    def worker(self) -> tuple[int, int]:
        """Rank and number of the workers that share the batches, be they independent or the trainer's processes.

        Raises:
            ConfigurationError: If they are both, or processes do not divide among target shards.
        """
        rank, world_size = self._process
        n_shards = len(self.shards)
        if world_size % n_shards:
            raise ConfigurationError(
                f"data.target_shards is {n_shards}, and the trainer's {world_size} processes do not divide among them: "
                f"give it a multiple of {n_shards} (--trainer.devices), or start workers of single shards, whose parts "
                f"lit-attr merge unites (--data.target_shard, from 0 to {n_shards - 1}), or choose other --data."
                "target_shards"
            )
        if self.world_size == 1:
            return rank // n_shards, world_size // n_shards
        if world_size > 1:
            raise ConfigurationError(
                f"data.world_size is {self.world_size}, for independent workers of one device each, but the "
                f"trainer has {world_size} processes: use --trainer.devices 1 --trainer.num_nodes 1, or drop data.rank"
            )
        return self.rank, self.world_size

    @property
    def _process(self) -> tuple[int, int]:
        """Rank and number of the trainer's processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def shards(self) -> range:
        """The target shards of the trainer's processes."""
        if self._target_shard is None:
            return range(self.target_shards)
        return range(self._target_shard, self._target_shard + 1)

    @property
    def shard(self) -> int:
        """The target shard of this process."""
        return self.shards[self._process[0] % len(self.shards)]

    @property
    def independent(self) -> bool:
        """Whether this is one of several workers that know nothing of each other."""
        return self.world_size > 1 or len(self.shards) < self.target_shards

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, `run` aside, without the entries that Lightning's command line adds."""
        return {key: value for key, value in self.hparams.items() if not key.startswith("_")}

    def check(self, vocab_size: int, block_size: int) -> None:
        """Check the length of the sequences, and all token ids; say what looks like padding.

        Args:
            vocab_size: Number of token ids of the model.
            block_size: Longest sequence that the model takes.

        Raises:
            DataError: If they do not belong to the model.
            LitAttrError: If `prepare_data` or `setup` has failed, in a trainer of several processes.
        """
        self._postponed.raise_mistake()
        check_length(self.seq_len, block_size)
        for remark in check_rows(self._opened, self.n_rows, self.batch_size, vocab_size):
            rank_zero_info(f"lit_attr: warning: {remark}")

    def assign(self, batch_ids: Ids, n_steps: int, lead: int = 0) -> None:
        """Decide what this process does, in place of every `world_size`-th batch.

        Args:
            batch_ids: Its batches, in order.
            n_steps: Steps of every process, at least 1; those without a batch are empty.
            lead: How many of its first steps are empty: others have to catch up with it.
        """
        self._assigned = batch_ids, n_steps, lead

    def end(self) -> None:
        """Let no more batches come."""
        if self._stream is not None:
            self._stream.has_ended = True

    def predict_dataloader(self) -> "BatchStream":
        """The batches of this process."""
        rank, world_size = (0, 1) if self._assigned else self.worker()
        assigned = self._assigned or (all_ids(self.n_batches)[rank::world_size], -(-self.n_batches // world_size), 0)
        self._stream = BatchStream(self, *assigned)
        return self._stream


class BatchStream:
    """The batches of one process, in order.

    It yields whole batches and is no DataLoader, so that Lightning neither shards nor rebatches it.

    Args:
        data: Where batches come from.
        batch_ids: The batches that the process does.
        n_steps: Number of batches that it yields; empty ones where it has none.
        lead: Number of empty ones before its first.

    Attributes:
        has_ended: Whether no more of them come.
    """

    def __init__(self, data: TokenDataModule, batch_ids: Ids, n_steps: int, lead: int = 0) -> None:
        self.data = data
        self.batch_ids = batch_ids
        self.n_steps = n_steps
        self.lead = lead
        self.has_ended = False

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[TokenBatch]:
        for step in range(-self.lead, self.n_steps - self.lead):
            if self.has_ended:
                return
            if 0 <= step < len(self.batch_ids):
                batch_id = int(self.batch_ids[step])
                yield TokenBatch(batch_id, self.data.batch(batch_id))
            else:
                yield TokenBatch(-1, torch.empty(0, self.data.seq_len, dtype=torch.int64))
