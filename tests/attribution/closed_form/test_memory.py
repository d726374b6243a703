import gc
import math
import re

import pytest
import torch

from lit_attr.errors import ConfigurationError
from lit_attr.harvest.memory import PeakMemory
from lit_attr.topology.sums import Sums
from tests.attribution.closed_form.examples import MB, closed_form_engine, random_ci, smallest_workspace
from tests.toys import ARCHITECTURES, ATTENTION, MATRICES, random_tokens, toy_model

SEQ_LEN = 64


def larger_toy(architecture="LlamaSimpleMLP", n_components=40):
    shape = {"n_embd": 32, "block_size": SEQ_LEN, "vocab_size": 200, "n_layer": 1}
    if architecture != "GPT2Simple":
        shape |= {"n_intermediate": 128, "n_ctx": SEQ_LEN}
    modules = [{"module_pattern": f"h.*.{m}", "C": n_components} for m in MATRICES[architecture] + ATTENTION]
    return toy_model(architecture, torch.float32, model_options=shape, module_info=modules)


def peak(model, tokens, ci, workspace_bytes):
    capture = model.component_forward(tokens, graph=False)
    engine = closed_form_engine(model, workspace_bytes=workspace_bytes)
    sums = Sums.zeros(engine.layout, torch.float32)
    gc.collect()
    with PeakMemory() as memory:
        engine.add_(sums, capture, ci)
    return memory.peak


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("density", [0.01, 1.0])
@pytest.mark.parametrize(
    "times_smallest", [2.5, pytest.param(6, marks=pytest.mark.slow), pytest.param(40, marks=pytest.mark.slow)]
)
def test_temporaries_stay_within_the_workspace(architecture, density, times_smallest):
    model, tokens = larger_toy(architecture), random_tokens(4, SEQ_LEN, vocab=200)
    ci = random_ci(model, tokens, density)
    workspace = int(times_smallest * smallest_workspace(model, tokens, ci))
    assert peak(model, tokens, ci, workspace) < workspace


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("density", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("n_components", [5, 150])
def test_temporaries_of_many_sizes_stay_within_the_workspace(architecture, density, n_components):
    model, tokens = larger_toy(architecture, n_components), random_tokens(8, SEQ_LEN, vocab=200)
    ci = random_ci(model, tokens, density)
    smallest = smallest_workspace(model, tokens, ci)
    for times in (3, 12, 100):
        assert peak(model, tokens, ci, times * smallest) < times * smallest, times


@pytest.mark.slow
def test_whole_batches_take_no_more_than_their_parts():
    """The workspace bounds temporaries whatever the batch."""
    model = larger_toy()
    tokens = random_tokens(32, SEQ_LEN, vocab=200)
    ci = random_ci(model, tokens, 0.05)
    workspace = 6 * smallest_workspace(model, tokens, ci)
    part = peak(model, tokens[:8], {layer: values[:8] for layer, values in ci.items()}, workspace)
    assert peak(model, tokens, ci, workspace) < 1.5 * part


def test_memory_follows_the_non_zeros():
    model, tokens = larger_toy(n_components=200), random_tokens(4, SEQ_LEN, vocab=200)
    few, many = (peak(model, tokens, random_ci(model, tokens, density), 512 * MB) for density in (0.01, 1.0))
    assert few < 0.6 * many


def test_the_fullest_sequence_decides():
    model, tokens = larger_toy(n_components=200), random_tokens(3, SEQ_LEN, vocab=200)
    uneven = random_ci(model, tokens, 1.0)
    for values in uneven.values():
        values[1:] = 0
    even = {layer: values[:1].expand_as(values) for layer, values in uneven.items()}
    assert smallest_workspace(model, tokens, uneven) == smallest_workspace(model, tokens, even)


@pytest.mark.parametrize(("seq_len", "n_components"), [(8, 4), (SEQ_LEN, 40), (SEQ_LEN, 200)])
def test_a_workspace_too_small_for_a_sequence_is_refused_and_the_named_one_suffices(seq_len, n_components):
    model, tokens = larger_toy(n_components=n_components), random_tokens(2, seq_len, vocab=200)
    ci = random_ci(model, tokens, 0.3)
    engine = closed_form_engine(model, workspace_bytes=smallest_workspace(model, tokens, ci) - 1)
    sums, capture = Sums.zeros(engine.layout, torch.float32), model.component_forward(tokens, graph=False)
    message = rf"sequences of {seq_len} tokens .* raise --model.workspace_mb"
    with pytest.raises(ConfigurationError, match=message) as refused:
        engine.add_(sums, capture, ci)
    assert not any(tensor.any() for _, tensor in sums.named())
    needed = int(re.search(r"at least (\d+) MB", str(refused.value))[1])
    assert needed == math.ceil(smallest_workspace(model, tokens, ci) / MB)
    closed_form_engine(model, workspace_bytes=needed * MB).add_(sums, capture, ci)
    assert sums.attr["output"]["embed"].numbers.any()
