"""Rows of token ids from a dataset, in the order in which goodfire-ai/spd trains on them."""

import glob
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import DataLoader

from lit_attr.data.spec import DatasetSpec
from lit_attr.data.tokenizer import load_tokenizer
from lit_attr.errors import DataError
from lit_attr.files.roots import user_path
from lit_attr.optional import require

Rows = Int[np.ndarray, "row seq"]

# Number of texts that are joined and tokenized together, and of pieces that they are cut into: they decide where
# rows begin.
_TEXTS_AT_ONCE = 1000
_PIECES = 20
_MAX_TOKEN = 2**31 - 1  # rows are cached as 32-bit integers
_BUILDERS = {".txt": "text", ".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


def read_rows(spec: DatasetSpec, skip_batches: int = 0) -> Iterator[Rows]:
    """Rows of `max_seq_len` token ids, a batch of source rows at a time.

    Args:
        spec: Description of the dataset. If its `order_needs_all_rows`, rows come in the order before the last shuffle.
        skip_batches: Number of batches of source rows to leave out at the beginning.

    Raises:
        DataError: If the dataset or its tokenizer cannot be loaded, or a row is not as described.
        ConfigurationError: If `datasets`, or `transformers` for a tokenizer of the hub, is not installed.
    """
    dataset = _open(spec)
    if spec.streaming:
        dataset = dataset.shuffle(seed=spec.seed, buffer_size=spec.buffer_size)
    else:
        dataset = dataset.shuffle(seed=spec.seed)
        if spec.is_tokenized and spec.shuffle_each_epoch:
            dataset = dataset.select(loader_order(len(dataset), spec.seed))
    batches = _batches(dataset, spec)
    tokenizer = None if spec.is_tokenized else load_tokenizer(spec.tokenizer or "")
    eos = spec.eos_token if spec.eos_token is not None or tokenizer is None else tokenizer.eos_token
    if tokenizer is not None and eos is None:
        raise DataError(f"tokenizer {spec.tokenizer!r} has no end-of-text token: name it with --data.dataset.eos_token")
    for number, batch in enumerate(islice(batches, skip_batches, None), start=skip_batches):
        if spec.column_name not in batch:
            raise DataError(f"dataset {spec.dataset_name!r} has no column {spec.column_name!r}; it has {sorted(batch)}")
        column = batch[spec.column_name]
        if tokenizer is None:
            yield _truncate(column, spec, number * _TEXTS_AT_ONCE)
        else:
            if odd := [value for value in column if not isinstance(value, str)]:
                raise DataError(f"{_where(spec)}: expected texts, found {odd[0]!r:.40}")
            text = join_texts(column, str(eos), spec.dataset_name)
            yield _cut([token for ids in tokenizer.encode(pieces(text)) for token in ids], spec.max_seq_len)


def join_texts(texts: Sequence[str], eos: str, dataset_name: str) -> str:
    """Texts with the end-of-text token between them.

    Args:
        texts: The texts.
        eos: The end-of-text token.
        dataset_name: Name of the dataset. SimpleStories may hold the token in lower case; only there it is restored.
    """
    joined = eos.join(texts)
    return joined.replace(eos.lower(), eos) if "SimpleStories" in dataset_name else joined


def pieces(text: str) -> list[str]:
    """The text cut into 20 pieces of equally many characters, the last one shorter; a cut may break a token."""
    length = max(-(-len(text) // _PIECES), 1)
    return [text[start : start + length] for start in range(0, len(text), length)]


def loader_order(n_rows: int, seed: int) -> list[int]:
    """The order in which a seeded torch DataLoader visits rows, whatever its batch size."""
    generator = torch.Generator().manual_seed(seed)
    rows: Any = range(n_rows)
    loader: DataLoader[int] = DataLoader(rows, batch_size=4096, shuffle=True, generator=generator, collate_fn=list)
    return [row for batch in loader for row in batch]


def _cut(tokens: Sequence[int], seq_len: int) -> Rows:
    n_rows = len(tokens) // seq_len
    return np.asarray(tokens[: n_rows * seq_len], dtype=np.int64).reshape(n_rows, seq_len)


def _truncate(column: Sequence[Sequence[int]], spec: DatasetSpec, first: int) -> Rows:
    for number, ids in enumerate(column):
        if not isinstance(ids, list) or len(ids) < spec.max_seq_len:
            given = len(ids) if isinstance(ids, list) else repr(ids)[:40]
            raise DataError(
                f"dataset {spec.dataset_name!r}, row {first + number} (shuffled), column {spec.column_name!r}: "
                f"expected at least {spec.max_seq_len} token ids, found {given}"
            )
        if not all(isinstance(token, int) and 0 <= token <= _MAX_TOKEN for token in ids):
            raise DataError(f"{_where(spec)}: expected token ids, found {ids!r:.40}")
    return np.asarray([ids[: spec.max_seq_len] for ids in column], dtype=np.int64).reshape(-1, spec.max_seq_len)


def _where(spec: DatasetSpec) -> str:
    return f"dataset {spec.dataset_name!r}, column {spec.column_name!r}"


def _batches(dataset: Any, spec: DatasetSpec) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - as `_open` returns it
    """Batches of source rows; an error while they are read is a fault of the dataset."""
    try:
        yield from dataset.iter(batch_size=_TEXTS_AT_ONCE)
    except Exception as error:
        raise DataError(f"cannot read the dataset {spec.dataset_name!r}: {_reasons(error)}") from error


def _reasons(error: BaseException | None) -> str:
    """The messages of an error and of those that caused it: the libraries' own may say nothing."""
    messages = []
    while error is not None:
        messages.append(str(error) or type(error).__name__)
        error = error.__cause__ or error.__context__
    return "; ".join(dict.fromkeys(messages))


def _open(spec: DatasetSpec) -> Any:  # noqa: ANN401 - a datasets.Dataset or IterableDataset
    datasets = require("datasets", "hf")
    path = user_path(spec.dataset_name)
    where: dict[str, Any] = {"path": spec.dataset_name}
    if path.is_file():
        if path.suffix.lower() not in _BUILDERS:
            raise DataError(f"{path}: expected a file ending in {', '.join(_BUILDERS)}, found {path.suffix!r}")
        where = {"path": _BUILDERS[path.suffix.lower()], "data_files": {spec.split: glob.escape(str(path))}}
    elif path.is_dir():
        where = {"path": str(path)}
    try:
        return datasets.load_dataset(**where, split=spec.split, streaming=spec.streaming)
    except Exception as error:  # anything from the hub or the files: no network, no such id, no such split
        raise DataError(
            f"cannot open the dataset {spec.dataset_name!r}, split {spec.split!r}: {_reasons(error)}"
        ) from error
