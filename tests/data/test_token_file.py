import numpy as np
import pytest
import torch

from lit_attr.data.batch_ids import all_ids
from lit_attr.data.token_file import TokenBatch, check_batch
from lit_attr.errors import ConfigurationError, DataError
from lit_attr.harvest.datamodule import BatchStream, TokenDataModule
from tests.toys import random_tokens, write_tokens


@pytest.fixture
def file(tmp_path):
    return write_tokens(tmp_path / "tokens.npy", n_rows=11)


def test_batches_are_consecutive_rows_and_the_last_is_partial(file):
    data = TokenDataModule(file, batch_size=4, order="file")
    assert data.n_batches == 3
    assert torch.cat([data.batch(i) for i in range(3)]).equal(random_tokens(11))
    assert len(data.batch(2)) == 3
    assert data.batch(0).dtype == torch.int64


@pytest.mark.parametrize(("wanted", "expected"), [("whole_dataset", 3), (1, 1), (3, 3), (100, 3)])
def test_n_batches(file, wanted, expected):
    assert TokenDataModule(file, 4, wanted).n_batches == expected


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_every_batch_goes_to_the_process_of_its_id_in_equal_steps(file, world_size):
    data = TokenDataModule(file, 4)
    seen = {}
    for rank in range(world_size):
        stream = BatchStream(data, all_ids(data.n_batches)[rank::world_size], -(-data.n_batches // world_size))
        batches = list(stream)
        assert len(batches) == len(stream) == -(-3 // world_size)
        for batch in batches:
            if batch.batch_id < 0:
                assert batch.tokens.shape == (0, data.seq_len)
                continue
            assert batch.batch_id % world_size == rank
            assert batch.batch_id not in seen
            seen[batch.batch_id] = batch.tokens
    assert sorted(seen) == [0, 1, 2]
    assert all(tokens.equal(data.batch(i)) for i, tokens in seen.items())


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_integer_dtypes(tmp_path, dtype):
    np.save(tmp_path / "t.npy", random_tokens(3).numpy().astype(dtype))
    assert TokenDataModule(tmp_path / "t.npy", order="file").batch(0).equal(random_tokens(3))


def test_the_file_is_mapped_not_read(file):
    data = TokenDataModule(file)
    assert isinstance(data.rows, np.memmap)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((0, 8), np.int64), r"no tokens, its shape is \(0, 8\)"),
        (np.zeros((8, 0), np.int64), r"no tokens, its shape is \(8, 0\)"),
        (np.zeros(8, np.int64), r"expected integers of shape \(n_sequences, seq_len\), found int64 of shape \(8,\)"),
        (np.zeros((2, 8)), r"found float64 of shape \(2, 8\)"),
        (np.array([[{}]]), r"cannot read .*t\.npy as a \.npy file"),
    ],
)
def test_content_that_is_no_token_data(tmp_path, content, message):
    np.save(tmp_path / "t.npy", content, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        TokenDataModule(tmp_path / "t.npy").setup()


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no token file at .*t\.npy: expected a \.npy file"):
        TokenDataModule(tmp_path / "t.npy").setup()


def test_truncated_file(file):
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match="it may be truncated"):
        TokenDataModule(file).setup()


def test_text_file(tmp_path):
    (tmp_path / "t.npy").write_text("In the beginning")
    with pytest.raises(DataError, match=r"expected a .npy file, found one that begins with b.In the"):
        TokenDataModule(tmp_path / "t.npy").setup()


def test_archive_of_several_arrays(tmp_path):
    np.savez(tmp_path / "t.npz", a=np.zeros((1, 1), int))
    with pytest.raises(DataError, match=r"expected one array \(\.npy\), found an archive"):
        TokenDataModule(tmp_path / "t.npz").setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be at least 1, found 0"),
        ({"n_batches": 0}, "data.n_batches must be at least 1, or 'whole_dataset', found 0"),
    ],
)
def test_numbers_out_of_range(file, options, message):
    with pytest.raises(ConfigurationError, match=message):
        TokenDataModule(file, **options)


@pytest.mark.parametrize("batch_id", [-1, 3])
def test_no_such_batch(file, batch_id):
    with pytest.raises(DataError, match=f"no batch {batch_id}: the data has batches 0 to 2"):
        TokenDataModule(file, 4).batch(batch_id)


@pytest.mark.parametrize("bad", [11, -1])
def test_token_outside_the_vocabulary(bad):
    tokens = random_tokens(3)
    tokens[1, 5] = bad
    message = rf"batch 7, row 1, position 5: token id {bad} is outside the model's vocabulary \(0 to 10\)"
    with pytest.raises(DataError, match=message):
        check_batch(TokenBatch(7, tokens), vocab_size=11, block_size=8)
    check_batch(TokenBatch(7, random_tokens(3)), vocab_size=11, block_size=8)


def test_sequences_longer_than_the_context():
    with pytest.raises(DataError, match="sequences of 8 tokens are longer than the model's context of 7"):
        check_batch(TokenBatch(7, random_tokens(3)), vocab_size=11, block_size=7)
