"""Which order of rows a harvest has, and which batches it makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_attr.data.random_order import RandomOrder
from lit_attr.data.row_order import RowOrder, order_entries
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.datamodule import TokenDataModule
from tests.data import (
    description,
    make_spec,
    offline,  # noqa: F401
    texts,
    write_dataset_run,
    write_rows,
)

N_ROWS = 103


@pytest.fixture
def tokens(tmp_path):
    """A file whose every row is its number."""
    np.save(tmp_path / "t.npy", np.repeat(np.arange(N_ROWS)[:, None], 3, axis=1))
    return tmp_path / "t.npy"


def batches(data: TokenDataModule) -> list[list[int]]:
    """The numbers of the rows of each batch."""
    return [data.batch(i)[:, 0].tolist() for i in range(data.n_batches)]


def rows(tokens: Path, batch_size: int = 10, **order: Any) -> list[int]:
    """The numbers of the rows of all batches."""
    return [row for batch in batches(TokenDataModule(tokens, batch_size, **order)) for row in batch]


def dealt(data: TokenDataModule) -> dict[int, list[int]]:
    return {batch.batch_id: batch.tokens[:, 0].tolist() for batch in data.predict_dataloader() if batch.batch_id >= 0}


def test_random_is_the_default_and_every_row_comes_once(tokens):
    in_order = list(range(N_ROWS))
    found = rows(tokens)
    assert found == rows(tokens, order="random", seed=0) == RandomOrder(N_ROWS, 0)[np.arange(N_ROWS)].tolist()
    assert found == rows(tokens, 1) == rows(tokens, 200), "whatever the size of batches"
    assert sorted(found) == sorted(rows(tokens, seed=1)) == in_order == rows(tokens, order="file")
    assert len({tuple(found), tuple(rows(tokens, seed=1)), tuple(in_order)}) == 3


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_workers_and_number_of_batches_change_no_batch(tokens, world_size):
    """So that a harvest of the first batches can be extended, also by others."""
    whole = dict(enumerate(batches(TokenDataModule(tokens, 10))))
    for n_batches in (1, 4, 11):
        workers = [
            dealt(TokenDataModule(tokens, 10, n_batches, rank=rank, world_size=world_size))
            for rank in range(world_size)
        ]
        assert sorted(batch_id for worker in workers for batch_id in worker) == list(range(n_batches))
        assert all(rows == whole[batch_id] for worker in workers for batch_id, rows in worker.items())


def test_digest_is_of_the_rows_that_are_read_and_of_no_others(tokens):
    def digests(**order):
        return [TokenDataModule(tokens, 10, **order).digest(n) for n in (3, 4, 11)]

    of_file, random, other = digests(order="file"), digests(), digests(seed=1)
    assert of_file[2] == random[2] == other[2], "all rows are the same rows"
    assert len({*of_file, *random, *other}) == 7
    order = RandomOrder(N_ROWS, 0)[np.arange(N_ROWS)]
    copy = tokens.with_name("in_order.npy")
    np.save(copy, np.load(tokens)[order])
    assert [TokenDataModule(copy, 10, order="file").digest(n) for n in (3, 4)] == random[:2]
    changed_rows = np.load(tokens)
    changed_rows[order[35]] += 1
    np.save(tokens, changed_rows)
    changed = digests()
    assert changed[0] == random[0]
    assert changed[1] != random[1]
    assert changed[2] != random[2]


def test_a_dataset_comes_in_a_random_order_of_all_its_rows_unless_it_is_streamed(tmp_path):
    described = description(write_rows(tmp_path / "data.jsonl", text=texts(60)), shuffle_each_epoch=False)
    run = write_dataset_run(tmp_path / "spd-s-toytoy00", described)
    in_order = TokenDataModule(run=run, batch_size=2, order="file")
    in_order.prepare_data()
    n_rows = len(in_order.rows)
    data = TokenDataModule(run=run, batch_size=2, n_batches=1)
    data.prepare_data()
    assert data.order_entries() == {"order": "random", "order_seed": 0, "order_rows": n_rows}
    assert in_order.order_entries() == {"order": "file"}
    places = RandomOrder(n_rows, 0)[np.arange(2)].tolist()
    expected = torch.cat([in_order.batch(place // 2)[place % 2 :][:1] for place in places])
    assert data.batch(0).equal(expected)


@pytest.mark.parametrize("settings", [{"name": "random", "seed": 0}, {"name": None, "seed": 3}])
def test_a_stream_has_no_order_but_its_own(tmp_path, settings):
    spec = make_spec(write_rows(tmp_path / "data.jsonl", text=texts(3)), streaming=True)
    assert RowOrder(None, 0).seed_for(spec) is RowOrder("file", 0).seed_for(spec) is None
    with pytest.raises(ConfigurationError, match=r"needs all rows, and the dataset '.*data\.jsonl' is streamed: drop"):
        RowOrder(**settings).seed_for(spec)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "shuffled"}, r"data\.order must be one of \('random', 'file'\), found 'shuffled'"),
        ({"seed": -1}, r"data\.seed must be 0 to 2\^63 - 1, found -1"),
        ({"seed": 2**63}, r"data\.seed must be 0 to 2\^63 - 1, found 9223372036854775808"),
        ({"name": "file", "seed": 2}, r"data\.seed is that of a random order, and data\.order is 'file': drop 2"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        RowOrder(**{"name": None, "seed": 0, **settings})


def test_entries():
    assert order_entries(None, 9) == {"order": "file"}
    assert order_entries(4, 9) == {"order": "random", "order_seed": 4, "order_rows": 9}
