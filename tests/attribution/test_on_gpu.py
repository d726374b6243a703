"""Engines on a CUDA device: the numbers of the CPU, and the same bits every time."""

import pytest
import torch

from lit_attr.attribution.batch import add_batch_with_ci_
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.edge_sums import add_rows_
from lit_attr.attribution.engine_choice import build_engine, choose_engines
from tests.attribution.closed_form.examples import random_ci, unit_size
from tests.sums import layout_of, zero_sums
from tests.toys import ARCHITECTURES, ATTENTION, MATRICES, random_tokens, toy_model

pytestmark = pytest.mark.gpu
ENGINES = ["closed_form", "autograd", "forward_mode"]


def sums_on(device, architecture, name, dtype):
    """Sums of one batch in which tokens and components are frequent."""
    kept = ATTENTION if name == "forward_mode" else MATRICES[architecture] + ATTENTION
    modules = [{"module_pattern": f"h.*.{matrix}", "C": 20} for matrix in kept]
    model = unit_size(toy_model(architecture, dtype, module_info=modules)).to(device)
    tokens = random_tokens(20, 8, vocab=3)
    ci = {layer: values.to(device) for layer, values in random_ci(model, tokens, 0.5).items()}
    topology = trace_topology(model)
    choice = choose_engines("autograd" if name == "autograd" else "auto", model, topology)
    assert name in choice.blocks
    alive = {layer: torch.ones(n, dtype=torch.bool) for layer, n in topology.n_components.items()}
    sums = zero_sums(topology, dtype, device)
    engine = build_engine(choice, model, layout_of(topology, alive=alive), 4, 1 << 26)
    add_batch_with_ci_(sums, model, topology, engine, tokens.to(device), ci)
    return dict(sums.named())


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_numbers_of_the_cpu(architecture, name):
    found, expected = (sums_on(device, architecture, name, torch.float64) for device in ("cuda", "cpu"))
    for key, values in expected.items():
        largest = float(values.abs().max())
        torch.testing.assert_close(found[key].cpu(), values, rtol=1e-9, atol=1e-9 * max(largest, 1.0), msg=key)


@pytest.mark.parametrize("name", ENGINES)
def test_the_same_bits_every_time(name):
    first, second = (sums_on("cuda", "LlamaSimple", name, torch.float32) for _ in range(2))
    assert [key for key, values in first.items() if not values.equal(second[key])] == []


def test_many_values_for_few_rows():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(100_000, 8, generator=generator)
    rows = torch.randint(0, 7, (len(values),), generator=generator)
    tables = [torch.zeros(7, 8, device="cuda") for _ in range(2)]
    for table in tables:
        add_rows_(table, rows.cuda(), values.cuda())
    assert tables[0].equal(tables[1])
    expected = torch.zeros(7, 8, dtype=torch.float64).index_add_(0, rows, values.double())
    torch.testing.assert_close(tables[0].cpu().double(), expected, rtol=1e-4, atol=1e-2)
