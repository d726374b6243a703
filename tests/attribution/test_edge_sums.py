import pytest
import torch

from lit_attr.attribution.edge_sums import add_at_

ALL = slice(None)


@pytest.mark.parametrize("sources", [None, [3, 0]])
@pytest.mark.parametrize("targets", [ALL, slice(1, 3), [2, 0]])
def test_values_are_added_to_their_sources_and_targets(sources, targets):
    before = torch.randn(4, 3)
    table = before.clone()
    rows = range(4) if sources is None else sources
    columns = range(3)[targets] if isinstance(targets, slice) else targets
    values = torch.randn(len(rows), len(columns)).double()
    add_at_(
        table,
        None if sources is None else torch.tensor(sources),
        targets if isinstance(targets, slice) else torch.tensor(targets),
        values,
    )
    expected = before.clone()
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            expected[row, column] += values[i, j].float()
    assert table.equal(expected)
