"""Small random storages of random shapes, and answers to questions about them by the formulas alone."""

import numpy as np
import torch
from hypothesis import strategies as st

from lit_attr.query import index_build, layer_pairs, list_writing, running_lists
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage

LAYERS = ("0.attn.q", "0.attn.o", "0.mlp.up", "0.mlp.down", "1.mlp.up")
EPS = 1e-10


def small_tiles(monkeypatch):
    """Lists, tiles and groups so small that every boundary is crossed."""
    monkeypatch.setattr(index_build, "N_KEPT", 3)
    monkeypatch.setattr(list_writing, "_N_KEYS", 2)
    monkeypatch.setattr(list_writing, "_N_NEIGHBOURS", 3)
    monkeypatch.setattr(layer_pairs, "_SIDE", 2)
    monkeypatch.setattr(running_lists, "_RANKED", 4)


@st.composite
def storages(draw):
    """Partial topologies, dead targets, zero scales."""
    sizes = {layer: draw(st.integers(1, 6)) for layer in LAYERS}
    vocab, d_model = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def numbers(*shape):
        values = torch.randn(shape, generator=generator)
        return values * (torch.rand(shape, generator=generator) < 0.8)

    pairs = [(t, s) for i, t in enumerate(LAYERS) for s in LAYERS[:i]]
    kept = [pair for pair in pairs if draw(st.booleans())]
    from_embed = [layer for layer in LAYERS if draw(st.booleans())]
    targets = [layer for layer in LAYERS if layer in from_embed or any(layer == t for t, _ in kept)]

    def regular():
        return {t: {s: numbers(sizes[t], sizes[s]) for target, s in kept if target == t} for t in targets}

    def embed():
        return {t: numbers(sizes[t], vocab) for t in from_embed}

    dead = {t: torch.rand(sizes[t], generator=generator) < 0.2 for t in LAYERS}
    attr, attr_abs, from_tokens, from_tokens_abs = regular(), regular(), embed(), embed()
    for nested in (attr, attr_abs):
        for t, by_source in nested.items():
            for block in by_source.values():
                block[dead[t]] = 0
    squares = {layer: numbers(n).abs() for layer, n in sizes.items()}
    for layer, rows in dead.items():
        squares[layer][rows] = 0
    return DatasetAttributionStorage(
        regular_attr=attr,
        regular_attr_abs=attr_abs,
        embed_attr=from_tokens,
        embed_attr_abs=from_tokens_abs,
        unembed_attr={s: numbers(d_model, sizes[s]) for s in LAYERS if draw(st.booleans())},
        embed_unembed_attr=numbers(d_model, vocab),
        w_unembed=numbers(d_model, vocab),
        ci_sum={layer: numbers(n).abs() for layer, n in sizes.items()},
        component_act_sq_sum=squares,
        logit_sq_sum=numbers(vocab).abs(),
        embed_token_count=torch.randint(0, 4, (vocab,), generator=generator),
        ci_threshold=0.0,
        n_tokens_processed=draw(st.integers(1, 50)),
    )


def all_edges(storage, metric, normalized):
    """Source layer and target layer to a block of values, in float64."""
    blocks = {}
    regular, embed = (
        (storage.regular_attr, storage.embed_attr)
        if metric == "attr"
        else (storage.regular_attr_abs, storage.embed_attr_abs)
    )
    for target, by_source in regular.items():
        for source, block in by_source.items():
            blocks[source, target] = block.double().numpy()
    for target, block in embed.items():
        blocks["embed", target] = block.double().numpy()
    if metric == "attr":
        unembed = storage.w_unembed.double().numpy().T
        for source, block in [*storage.unembed_attr.items(), ("embed", storage.embed_unembed_attr)]:
            blocks[source, "output"] = unembed @ block.double().numpy()
    if not normalized:
        return blocks

    def rms(target):
        squares = storage.logit_sq_sum if target == "output" else storage.component_act_sq_sum[target]
        return np.maximum(np.sqrt(squares.double().numpy() / storage.n_tokens_processed), EPS)

    def denominator(source):
        sums = storage.embed_token_count if source == "embed" else storage.ci_sum[source]
        return np.maximum(sums.double().numpy(), EPS)

    return {(s, t): block / denominator(s)[None, :] / rms(t)[:, None] for (s, t), block in blocks.items()}


def ranked(values, k, sign):
    """The strongest of some named values, best first."""
    if sign == "both":
        found = {key: value for key, value in values.items() if value != 0}
    else:
        found = {key: value for key, value in values.items() if (value > 0) == (sign == "positive") and value != 0}
    return sorted(found.items(), key=lambda item: -abs(item[1]))[:k]
