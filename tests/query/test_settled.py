"""How far strongest sources are settled, against every edge by itself."""

import math

import pytest
import torch

from lit_attr.errors import ConfigurationError
from lit_attr.query import settled as module
from lit_attr.query.settled import Settled, settled
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.edge_errors import EdgeErrors
from lit_attr.storage.interval import t_quantile
from lit_attr.storage.summed_blocks import SummedBlocks
from lit_attr.topology.address import EMBED
from lit_attr.topology.choice import Measure
from tests.storage.examples import random_storage
from tests.storage.test_result_errors import READ, accumulated
from tests.storage.test_summed import W_UNEMBED, random_part

MEASURE = Measure()


def summed(n_groups, level_of=1.0):
    """Sums of random groups; one source of each layer far above the others in every group."""
    groups = [random_part(8, 8) for _ in range(n_groups)]
    for part in groups:
        for ci in part.ci.values():
            ci.abs_()
        part.act_sq.update({layer: tensor.abs_() + 1 for layer, tensor in part.act_sq.items()})
        for source, by_row in ((s, t) for by_source in part.attr.values() for s, t in by_source.items()):
            if source != EMBED:
                by_row.numbers.mul_(0.01).add_(level_of * (1 + torch.from_numpy(by_row.live.ids)[:, None]))
    return SummedBlocks({"one": accumulated(groups)}, READ, W_UNEMBED, 0.0, {})


def by_definition(blocks, k, level):
    errors, n_targets, n_separated, relative = EdgeErrors.of(blocks), 0, 0, []
    for target in (layer for layer in blocks.content.ci_sum if blocks.source_layers(layer, "attr")):
        edges = []
        for source in blocks.source_layers(target, "attr"):
            values, of_pair = (each.tile(source, target, MEASURE).double() for each in (blocks, errors))
            n_groups = errors.n_groups(source, target, "attr").double()
            widths = of_pair * t_quantile(n_groups - 1, level)
            edges.append(torch.stack([values.abs(), of_pair, widths], -1))
        for row in torch.cat(edges, 1):
            row = row[row[:, 0] > 0]
            n_targets += len(row) > 0
            known = sorted((edge for edge in row.tolist() if not math.isnan(edge[1])), reverse=True)
            top, others = known[:k], known[k:]
            relative += [error / value for value, error, _ in top]
            if others:
                n_separated += min(v - w for v, _, w in top) > max(v + w for v, _, w in others)
            else:
                n_separated += 0 < len(known) == len(row)
    median = sorted(relative)[(len(relative) - 1) // 2] if relative else None
    return n_targets, n_separated, median


@pytest.mark.parametrize("k", [1, 2, 10])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_every_target_by_itself(monkeypatch, k, level):
    monkeypatch.setattr(module, "_N_TARGETS", 2)
    monkeypatch.setattr(module, "_N_SOURCES", 2)
    seen = set()
    for n_groups in (8, 40):
        blocks = summed(n_groups)
        found, (n_targets, n_separated, median) = settled(blocks, k, level), by_definition(blocks, k, level)
        assert (found.n_targets, found.n_separated) == (n_targets, n_separated)
        assert found.relative_error == pytest.approx(median, rel=1e-5)
        seen |= {found.n_separated > 0, found.n_separated < found.n_targets}
    assert seen == {True, False} or k == 10


def test_too_few_groups_tell_nothing():
    found = settled(summed(3), 2, 0.95)
    assert found == Settled(found.n_targets, 0, None)
    assert found.n_targets > 0


def test_targets_without_any_source_tell_nothing():
    """Nothing of what feeds them occurred, or they are always zero: they are not settled, and none of those asked."""
    groups = [random_part(8, 8) for _ in range(8)]
    for part in groups:
        for ci in part.ci.values():
            ci.abs_()
        part.act_sq.update({layer: tensor.abs_() + 1 for layer, tensor in part.act_sq.items()})
        for table in (table for by_source in part.attr.values() for table in by_source.values()):
            table.numbers.zero_()
    blocks = SummedBlocks({"one": accumulated(groups)}, READ, W_UNEMBED, 0.0, {})
    assert settled(blocks, 2, 0.95) == Settled(0, 0, None)


def test_without_standard_errors():
    with pytest.raises(ConfigurationError, match="no standard errors"):
        settled(Blocks(random_storage()), 2, 0.95)
