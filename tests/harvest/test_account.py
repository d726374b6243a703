"""The account of a batch's memory against the batch itself."""

import copy
import gc

import pytest
import torch

from lit_attr.attribution.batch import add_batch_
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import build_engine, choose_engines
from lit_attr.decomposition.widening import keep_bfloat16_
from lit_attr.harvest.account import batch_bytes
from lit_attr.harvest.memory import PeakMemory
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums
from tests.attribution.closed_form.test_memory import larger_toy
from tests.huggingface_toys import huggingface_model
from tests.toys import random_tokens

CPU, WORKSPACE = torch.device("cpu"), 1 << 22


pytestmark = pytest.mark.slow


def some_alive(topology, share):
    generator = torch.Generator().manual_seed(0)
    return {layer: torch.rand(n, generator=generator) < share for layer, n in topology.n_components.items()}


def account_and_truth(model, tokens, share_alive=0.5, engine="auto", metrics="both"):
    """The account; the peak of the batch, and of all but the engine."""
    topology = trace_topology(model)
    layout, choice = (
        Layout.of(topology, some_alive(topology, share_alive), metrics),
        choose_engines(engine, model, topology),
    )
    ci = model.causal_importance(tokens)
    density = sum(int(values.count_nonzero()) for values in ci.values()) / sum(values.numel() for values in ci.values())
    del ci
    account = batch_bytes(copy.deepcopy(model).to("meta"), choice, layout, *tokens.shape, density, CPU)
    peaks = []
    for truncated in (False, True):
        whole = build_engine(choice, model, layout, 2, WORKSPACE)
        sums = Sums.zeros(layout, model.dtype)
        if not truncated:  # so that the rows of its sources are there
            add_batch_(sums, model, topology, whole, tokens)
        gc.collect()
        with PeakMemory() as memory:
            add_batch_(sums, model, topology, whole.truncated() if truncated else whole, tokens)
        peaks.append(memory.peak)
    return account, *peaks


@pytest.mark.parametrize("metrics", ["both", "attr"])
@pytest.mark.parametrize("architecture", ["LlamaSimple", "GPT2Simple"])
def test_a_batch_takes_what_the_account_says(architecture, metrics):
    model, tokens = larger_toy(architecture, 60), random_tokens(3, 64, vocab=200)
    account, peak, forwards = account_and_truth(model, tokens, metrics=metrics)
    # Squares of logits are taken of all sequences at once, as on a GPU; on a CPU one by one.
    assert 0.97 * forwards < account.forwards < 1.2 * forwards
    assert peak < 1.03 * max(account.forwards, account.taken + WORKSPACE)


def test_of_bfloat16_and_of_the_library():
    model = huggingface_model("llama", dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    wide, *_ = account_and_truth(model, random_tokens(2, 9))
    keep_bfloat16_(model)
    narrow, _, forwards = account_and_truth(model, random_tokens(2, 9))
    assert 0.97 * forwards < narrow.forwards < 1.2 * forwards
    assert narrow.forwards >= wide.forwards  # matrices are widened in turn


def test_of_passes_only_the_capture_is_known():
    model, tokens = larger_toy("LlamaSimple", 20), random_tokens(1, 16, vocab=200)
    account, peak, _ = account_and_truth(model, tokens, engine="autograd")
    assert 0 < account.taken < peak


def test_targets_sources_and_positions_count():
    model = larger_toy("LlamaSimple", 60)
    topology, meta = trace_topology(model), copy.deepcopy(model).to("meta")
    choice = choose_engines("auto", model, topology)

    def account(share=0.5, density=0.1, rows=2, seq_len=64):
        layout = Layout.of(topology, some_alive(topology, share), "both")
        return batch_bytes(meta, choice, layout, rows, seq_len, density, CPU)

    half = account()
    n, positions = sum(topology.n_components.values()), 2 * 64

    more_targets = account(share=1.0).taken - half.taken
    assert more_targets == 4 * positions * sum(int((~mask).sum()) for mask in some_alive(topology, 0.5).values())
    assert account(density=0.2).taken - half.taken == pytest.approx(0.1 * positions * n * 8, rel=0.01)
    assert account(rows=4).taken == pytest.approx(2 * half.taken, rel=0.01)
    assert account(seq_len=32).forwards < half.forwards
