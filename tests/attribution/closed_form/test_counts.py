import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.attribution.closed_form.counts import PairCounts
from lit_attr.attribution.closed_form.pair_blocks import position_blocks

GENERATOR = torch.Generator().manual_seed(0)


@settings(max_examples=30, deadline=None)
@given(
    n_rows=st.integers(1, 4),
    seq_len=st.one_of(st.integers(1, 4), st.integers(40, 80)),
    density=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_counts_are_those_of_each_pair(n_rows, seq_len, density):
    ci = {
        layer: (torch.rand(n_rows, seq_len, n, generator=GENERATOR) < density) * 0.5
        for layer, n in {"0.mlp.up": 3, "0.attn.q": 5, "0.attn.v": 2}.items()
    }
    layers = ["0.mlp.up", "0.attn.q"]
    counts = PairCounts.of(ci, layers[:1]) | PairCounts.of(ci, layers[1:])
    rows = slice(n_rows // 2, n_rows)
    for layer in layers:
        active = ci[layer][rows].bool()
        places = counts.places(layer, rows)
        assert (places.start, places.stop) == (int(ci[layer][: rows.start].sum() * 2), int(ci[layer].sum() * 2))
        assert counts.longest_sum(layer, rows) >= int(active.sum((0, 1)).max())
        assert counts.sizes(layer, rows) == [
            max(int(row[block].sum()) for row in active) for block in position_blocks(seq_len)
        ]
    assert counts.most_of_a_layer == max(int((ci[layer][row] != 0).sum()) for layer in layers for row in range(n_rows))
    assert counts.most == max(sum(int((ci[layer][row] != 0).sum()) for layer in layers) for row in range(n_rows))


def test_nothing_to_count():
    counts = PairCounts.of({"0.mlp.up": torch.ones(1, 2, 3)}, [])
    assert (counts.most, counts.most_of_a_layer, dict(counts.by_block)) == (0, 0, {})
