import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.attribution.closed_form.counts import PairCounts
from lit_attr.attribution.closed_form.pair_blocks import PairTable, position_blocks
from lit_attr.attribution.closed_form.workspace import Workspace
from tests.attribution.closed_form.test_weights import pairs_in, sparse_matrix


def pair_table(matrix, batch, seq_len):
    counts = PairCounts.of({"0.mlp.up": matrix.view(batch, seq_len, -1)}, ["0.mlp.up"])
    return PairTable.of(pairs_in(matrix), batch, seq_len, counts.sizes("0.mlp.up", slice(None))).blocks


@given(st.integers(1, 5000))
def test_blocks_of_positions_are_few_and_none_is_short(seq_len):
    blocks = position_blocks(seq_len)
    assert [i for block in blocks for i in range(block.start, block.stop)] == list(range(seq_len))
    assert len(blocks) <= 8
    assert len(blocks) == 1 or min(b.stop - b.start for b in blocks[:-1]) >= 16
    assert len({block.stop - block.start for block in blocks[:-1]}) <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.one_of(st.integers(1, 5), st.integers(30, 70)),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.sampled_from([1, 2000, 1 << 30]),
)
def test_pair_blocks_keep_every_pair_once(batch, seq_len, density, nbytes):
    matrix = sparse_matrix(batch * seq_len, 3, density)
    blocks = pair_table(matrix, batch, seq_len)
    assert [pairs.block for pairs in blocks] == position_blocks(seq_len)
    workspace = Workspace(nbytes, torch.device("cpu"))
    seen = []
    for pairs in blocks:
        for rows, part in pairs.pieces(workspace, 100, 300):
            assert part.source.shape[0] == rows.stop - rows.start
            for row, slot in part.weight.nonzero().tolist():
                position = (rows.start + row) * seq_len + pairs.block.start + int(part.position[row, slot])
                assert int(part.position[row, slot]) < pairs.block.stop - pairs.block.start
                seen.append((position, int(part.source[row, slot]), float(part.weight[row, slot])))
    expected = [(p, s, float(matrix[p, s])) for p, s in matrix.nonzero().tolist()]
    assert sorted(seen) == sorted(expected)


def test_values_are_gathered_at_the_positions_of_pairs():
    matrix = sparse_matrix(2 * 40, 3, 0.2)
    by_row, by_head = torch.randn(2, 40, 5), torch.randn(2, 3, 40, 5)
    write = torch.randn(3, 5, dtype=torch.float64)
    for pairs in pair_table(matrix, 2, 40):
        rows, rows_by_head = pairs.gather(by_row[:, pairs.block]), pairs.gather(by_head[:, :, pairs.block])
        for row, slot in pairs.weight.nonzero().tolist():
            position = pairs.block.start + int(pairs.position[row, slot])
            assert rows[row, slot].equal(by_row[row, position])
            assert rows_by_head[row, :, slot].equal(by_head[row, :, position])
        assert pairs.tangents(write).equal(write[pairs.source] * pairs.weight[..., None])
