"""Standard errors against their definition, from the contributions of every group one by one."""

from itertools import pairwise

import pytest
import torch

from lit_attr.attribution.batch import add_batch_with_ci_, read_vectors
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import EngineChoice, build_engine, choose_engines
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.storage.result_errors import summed_errors
from lit_attr.storage.summed import summed_tensors, whole
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.squares import N_BLOCKS
from tests.attribution.closed_form.examples import random_alive, random_ci, unit_size
from tests.attribution.named import named_result
from tests.sums import full_sums, layout_of
from tests.toys import ARCHITECTURES, random_tokens, toy_model

N_GROUPS = 20


def groups(model, topology):
    """Some batches with causal importances, of which some have no attr_abs, and the batches of each group."""
    batches = []
    for seed in range(N_GROUPS + 10):
        tokens = random_tokens(2 + seed % 2, 6, seed=seed, vocab=5)
        batches.append((tokens, random_ci(model, tokens, 0.2, seed), seed % 3 != 1))
    ends = [0, *range(2, 22, 2), *range(21, N_GROUPS + 11)]
    return [batches[first:last] for first, last in pairwise(ends)]


def engine_of(name, model, topology, layout):
    forward = {target: topology.sources[target] for target in topology.sources}
    choice = EngineChoice([], forward, {}) if name == "forward_mode" else choose_engines(name, model, topology)
    return build_engine(choice, model, layout, 8, 1 << 24)


def add(sums, model, topology, engine, batch):
    tokens, ci, has_abs = batch
    add_batch_with_ci_(sums if has_abs else sums.signed(), model, topology, engine, tokens, ci)


def by_definition(contributions, w_unembed):
    """Standard errors by edge, from the sums of each group: targets by sources, with output tokens as targets."""
    share = torch.stack([c["n_abs_tokens"].double() / c["n_tokens"] for c in contributions])
    n_tokens, n_abs = (sum(c[name] for c in contributions) for name in ("n_tokens", "n_abs_tokens"))
    errors, n_groups, sums = {}, {}, {}
    for name in contributions[0]:
        metric, _, edge = name.partition("/")
        source, _, target = edge.partition("->")
        if not target:
            continue
        x = torch.stack([c[name] for c in contributions])
        c = torch.stack([c["token_count" if source == EMBED else f"ci/{source}"] for c in contributions]).double()
        factor = 1.0
        if metric == "attr_abs":
            # A result of one group has its attr_abs scaled to all its tokens.
            x, c, factor = x * share[:, None, None], c * share[:, None], n_tokens / n_abs
        if target == OUTPUT:  # groups are dealt out to blocks
            x = torch.einsum("gds,dv->gvs", x, w_unembed)
            x, c = (torch.stack([t[b::N_BLOCKS].sum(0) for b in range(N_BLOCKS)]) for t in (x, c))
        total, ratio = c.sum(0), x.sum(0) / c.sum(0)
        n = total.square() / c.square().sum(0)
        spread = ((x - ratio * c[:, None]).square() / c[:, None]).nan_to_num(0).sum(0)
        errors[name] = torch.where(n > 1, (spread * total / (n - 1)).sqrt() * factor, 0.0)
        sums[name] = x.sum(0) * factor
        n_groups[name] = torch.where(total > 0, n, 0.0)
    return errors, n_groups, sums


def found_errors(parts, normalising, read, d_model, w_unembed, *, is_dense):
    """The same from squares, in the places of the dense form."""
    tensors = summed_tensors(parts, normalising, read, d_model, is_dense=is_dense)
    errors = summed_errors(parts, normalising, tensors)
    found = {}
    for metric in ("attr", "attr_abs"):
        for target, by_source in errors[f"regular_{metric}"].items():
            found |= {f"{metric}/{source}->{target}": whole(edges) for source, edges in by_source.items()}
        found |= {f"{metric}/{EMBED}->{t}": whole(edges) for t, edges in errors[f"embed_{metric}"].items()}
    into_output = {**errors["unembed_attr"], EMBED: errors["embed_unembed_attr"]}
    for source, vectors in into_output.items():
        by_block = whole(vectors).view(-1, N_BLOCKS, d_model) @ w_unembed
        found[f"attr/{source}->{OUTPUT}"] = by_block.square().sum(1).sqrt().T
    return found, errors


def assert_close(found, expected, sums):
    """To ten digits, but for what rounding leaves of a spread that is none."""
    assert found.keys() == expected.keys()
    n_compared = 0
    for name, theirs in expected.items():
        sizes = sums[name].nan_to_num(0).abs()
        sure = theirs > 1e-2 * sizes
        torch.testing.assert_close(found[name][sure], theirs[sure], rtol=1e-10, atol=0, msg=name)
        others = ~sure & theirs.isfinite()
        torch.testing.assert_close(
            found[name][others], theirs[others], rtol=0, atol=1e-7 * float(sizes.max()), msg=name
        )
        n_compared += int(sure.sum())
    assert n_compared > 100


SLOW = [pytest.param(name, n, marks=pytest.mark.slow) for name in ("forward_mode", "autograd") for n in (1, 3)]


@pytest.mark.parametrize(("name", "n_workers"), [("closed_form", 1), ("closed_form", 3), *SLOW])
def test_they_are_what_their_definition_says(name, n_workers):
    model = unit_size(toy_model(ARCHITECTURES[0], torch.float64))
    topology, alive = trace_topology(model), random_alive(model, 0.7, seed=1)
    read = read_vectors(model, topology, alive)
    layout = layout_of(topology, alive=alive, squares_dtype=torch.float64)
    engine = engine_of(name, model, topology, layout)
    workers = [AttributionSums() for _ in range(n_workers)]
    of_targets = {layer: read.of_targets(layer) for layer in layout.squares}
    for number, worker in enumerate(workers):
        worker.allocate(layout, torch.float64, "cpu", of_targets, first_block=number)
    contributions = []
    for number, group in enumerate(groups(model, topology)):
        alone = full_sums(topology, torch.float64, alive=alive)
        worker = workers[number % n_workers]
        for batch in group:
            worker.update(lambda sums, batch=batch: add(sums, model, topology, engine, batch))
            add(alone, model, topology, engine, batch)
        worker.flush()
        contributions.append({**named_result(alone, model, alive, topology), "n_abs_tokens": alone.n_abs_tokens})
    if n_workers == 1:
        parts = {"one": workers[0].totals}
    else:  # one is continued by another, a third stays by itself
        workers[0].add(workers[1].totals)
        parts = {"one": workers[0].totals, "other": workers[2].totals}
    found, errors = found_errors(parts, list(parts), read, model.d_model, model.unembedding, is_dense=True)
    expected, n_groups, sums = by_definition(contributions, model.unembedding)
    if n_workers > 1:  # which deal groups out to blocks otherwise
        found, expected = ({k: v for k, v in some.items() if OUTPUT not in k} for some in (found, expected))
    assert_close(found, expected, sums)
    for edge, theirs in n_groups.items():
        metric, _, (source, _, target) = edge.partition("/")[0], None, edge.partition("/")[2].partition("->")
        kind = "output" if target == OUTPUT else metric
        if kind != "output" or n_workers == 1:
            torch.testing.assert_close(errors["n_groups"][kind][source].double(), theirs, rtol=1e-6, atol=0)
    assert errors["n_all_groups"] == {"attr": N_GROUPS, "attr_abs": N_GROUPS - 3, "output": N_BLOCKS}
