"""Results whose edges can be told apart from zero, but for a few."""

import numpy as np
import torch

from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.strongest_build import write_strongest
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.summed_blocks import SummedBlocks
from lit_attr.storage.write import write_result
from lit_attr.topology.address import EMBED
from tests.storage.test_result_errors import READ, accumulated
from tests.storage.test_summed import GENERATOR, W_UNEMBED, random_part

NOT_TARGETS = {"not_targets": {"0.attn.q": [1], "0.attn.k": [0, 1]}}


def parts_told_apart():
    """Edges are positive and negative in turn; the first component of each layer, and token, is in too few groups."""
    GENERATOR.manual_seed(1)  # whatever was drawn before
    groups = [random_part(8, 8 if number % 3 else 0) for number in range(24)]
    for number, group in enumerate(groups):
        group.token_count[group.live[EMBED].ids] = torch.randint(
            1, 5, (len(group.live[EMBED].ids),), generator=GENERATOR
        )
        group.n_tokens.fill_(int(group.token_count.sum()))
        for ci in group.ci.values():
            ci.abs_()
        for name, table in group.edges():  # noise alone would not be told apart from zero
            source = name.partition("/")[2].partition("->")[0]
            weights = group.token_count if source == EMBED else group.ci[source]
            by_target = 2.0 * (-1) ** torch.arange(table.width)
            table.numbers.add_(weights[torch.from_numpy(np.asarray(table.live.ids))].double()[:, None] * by_target)
        if number > 1:  # the first of each layer occurs in two groups at most
            for weights in (*group.ci.values(), group.token_count):
                weights[0] = 0
            group.n_tokens.fill_(int(group.token_count.sum()))
            for _, table in group.edges():
                table.numbers[torch.from_numpy(np.asarray(table.live.ids) == 0)] = 0
        for squares in (*group.act_sq.values(), group.logit_sq):
            squares.abs_()
    return [accumulated(groups[:15]), accumulated(groups[15:])]


def told_apart(folder):
    """One harvest as dense and compact result, indexed, and as strongest edges of the result and of its parts."""
    parts = parts_told_apart()
    explorers = {}
    for form in ("dense", "compact"):
        for is_indexed in (False, True):
            name = f"{form}{' with index' * is_indexed}"
            (folder / name).mkdir()
            path = folder / name / "x.pt"
            named = {f"part {n}": part for n, part in enumerate(parts)}
            write_result(path, named, READ, W_UNEMBED, 0.0, NOT_TARGETS, is_dense=form == "dense")
            if is_indexed:
                build_index(path)
            explorers[name] = Explorer(path)
            assert explorers[name].is_indexed == is_indexed
    summed = SummedBlocks(named, READ, W_UNEMBED, 0.0, NOT_TARGETS)
    for name, blocks in (("strongest", Blocks(explorers["compact"].storage)), ("strongest of parts", summed)):
        explorers[name] = Explorer(write_strongest(blocks, folder / name, 100))
    assert (folder / "strongest").read_bytes() == (folder / "strongest of parts").read_bytes()
    return explorers


def write_told_apart(path, **provenance):
    """The same harvest as a result in the dense form."""
    named = {f"part {n}": part for n, part in enumerate(parts_told_apart())}
    write_result(path, named, READ, W_UNEMBED, 0.0, {**NOT_TARGETS, **provenance}, is_dense=True)
    return path
