"""Engines that are asked for some of the sums compute these, as among all of them."""

from dataclasses import replace

import pytest
import torch

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.closed_form.edge_blocks import closed_edges
from lit_attr.attribution.closed_form.engine import ClosedFormEngine
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.forward_mode.engine import ForwardModeEngine
from lit_attr.topology.shards import deal
from lit_attr.topology.sums import Sums
from tests.attribution.closed_form.examples import MB, random_ci
from tests.sums import by_source as by_source_of
from tests.sums import layout_of
from tests.toys import random_tokens, toy_model

MODEL, TOKENS = toy_model(), random_tokens(2, 6)
CI = random_ci(MODEL, TOKENS, 0.5)
WHOLE = layout_of(trace_topology(MODEL))
NO_TARGETS = {layer: ids[:0] for layer, ids in WHOLE.targets.items()}
WAYS = {
    "two": deal(WHOLE, 2),
    "five": deal(WHOLE, 5),
    "inputs and targets apart": [replace(WHOLE, targets=NO_TARGETS), replace(WHOLE, inputs=())],
}


def engine_of(name, layout):
    if name == "closed_form":
        return ClosedFormEngine(MODEL, layout, closed_edges(layout.topology, MODEL.anatomy()), 8 * MB)
    return ForwardModeEngine(MODEL, layout, 4) if name == "forward_mode" else AutogradEngine(layout, 4)


def added(name, layout):
    sums, engine = Sums.zeros(layout, torch.float64), engine_of(name, layout)
    engine.add_(sums, MODEL.component_forward(TOKENS, graph=engine.needs_graph), CI)
    return sums


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["closed_form", "forward_mode", "autograd"])
def test_shards_have_the_sums_of_the_whole(name, way):
    whole = added(name, WHOLE)
    inputs, columns = [], []
    for shard in WAYS[way]:
        found = added(name, shard)
        for target, by_source in found.attr.items():
            inputs.append(target)
            for source, table in by_source.items():
                right = by_source_of(whole.attr[target][source])
                torch.testing.assert_close(by_source_of(table), right, rtol=1e-12, atol=1e-12)
                assert table.numbers.any()
        for target, by_source in found.attr_abs.items():
            columns += [(target, int(column)) for column in shard.targets[target]]
            for source, table in by_source.items():
                right = by_source_of(whole.attr_abs[target][source])[:, shard.targets[target]]
                torch.testing.assert_close(by_source_of(table), right, rtol=1e-12, atol=1e-12)
    assert inputs == list(WHOLE.inputs)
    assert sorted(columns) == sorted(
        (target, column) for target, ids in WHOLE.targets.items() for column in ids.tolist()
    )
