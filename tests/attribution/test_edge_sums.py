import pytest
import torch

from lit_attr.attribution.edge_sums import EdgeSums

ALL = slice(None)


@pytest.mark.parametrize("sources", [None, [3, 0]])
@pytest.mark.parametrize("targets", [ALL, slice(1, 3), [2, 0]])
@pytest.mark.parametrize("transposed", [False, True])
def test_values_are_added_to_their_sources_and_targets(sources, targets, transposed):
    before = torch.randn(4, 3)
    table = before.T.clone().T if transposed else before.clone()
    rows = range(4) if sources is None else sources
    columns = range(3)[targets] if isinstance(targets, slice) else targets
    values = torch.randn(len(rows), len(columns), dtype=torch.float64)
    into = EdgeSums(
        table,
        None if sources is None else torch.tensor(sources),
        targets if isinstance(targets, slice) else torch.tensor(targets),
    )
    into.add_(values)
    expected = before.clone()
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            expected[row, column] += values[i, j].float()
    assert table.equal(expected)
