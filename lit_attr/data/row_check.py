"""What is seen of token ids before the first batch: whether a model knows all of them, and what looks like padding."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Integer

from lit_attr.data.row_source import RowSource
from lit_attr.data.token_file import check_ids

# Token ids that are looked at again at once, to find one that is known to be there.
_PIECE = 1 << 22
# Of fewer token ids shares say nothing; larger ones than this are worth a word.
_LEAST_TOKENS = 1000
_LARGE = 0.2


def check_rows(source: RowSource, n_rows: int, batch_size: int, vocab_size: int) -> list[str]:
    """Check all token ids of a harvest.

    A sample comes first, which is there at once. All rows are read once, together with their digest.

    Args:
        source: The rows.
        n_rows: How many of the first ones are harvested, at least one.
        batch_size: Rows of a batch, for the message.
        vocab_size: Number of token ids that the model knows.

    Returns:
        Remarks on tokens that may be padding, from the sample.

    Raises:
        DataError: If a token id is outside the vocabulary; it names the first one.
    """
    places = source.sample(n_rows)
    sample = source.read(places)
    _check(sample, vocab_size, places, batch_size)
    low, high = source.bounds(n_rows)
    if low < 0 or high >= vocab_size:  # perhaps of rows that are not harvested
        step = max(_PIECE // sample.shape[1], 1)
        for start in range(0, n_rows, step):
            some = np.arange(start, min(start + step, n_rows))
            _check(source.read(some), vocab_size, some, batch_size)
    return list(_remarks(sample)) if sample.size >= _LEAST_TOKENS else []


def _check(
    tokens: Integer[np.ndarray, "row seq"], vocab_size: int, places: Integer[np.ndarray, " row"], batch_size: int
) -> None:
    ids = torch.from_numpy(tokens.astype(np.int64))
    check_ids(ids, vocab_size, lambda row: divmod(int(places[row]), batch_size))


def _remarks(tokens: Integer[np.ndarray, "row seq"]) -> Iterator[str]:
    ids, counts = np.unique(tokens, return_counts=True)
    if (share := counts.max() / tokens.size) > _LARGE:
        yield (
            f"{share:.0%} of the tokens are of id {ids[counts.argmax()]}: whatever it is, padding or the beginning of "
            "a sequence, it counts as all other tokens do, as a source and as what is predicted"
        )
    if tokens.shape[1] < 2:
        return
    last = tokens[tokens[:, -1] == tokens[:, -2], -1]
    ids, counts = np.unique(last, return_counts=True)
    if len(last) and (share := counts.max() / len(tokens)) > _LARGE:
        yield (
            f"{share:.0%} of the rows end in id {ids[counts.argmax()]} twice or more: if that is padding, it counts as "
            "all other tokens do; rows without it give other numbers"
        )
