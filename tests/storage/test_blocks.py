"""Numbers of blocks, however they are asked for."""

import torch

from lit_attr.storage.blocks import Blocks
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.choice import Measure


def test_products_do_not_depend_on_how_many_are_asked_for():
    """To the last bit; float32 sums them in another order where there are fewer columns."""
    generator = torch.Generator().manual_seed(0)
    d_model, vocab, n = 65, 37, 90
    storage = DatasetAttributionStorage(
        **{name: {} for name in ("regular_attr", "regular_attr_abs", "embed_attr", "embed_attr_abs")},
        unembed_attr={"0.mlp.down": torch.randn(d_model, n, generator=generator)},
        embed_unembed_attr=torch.randn(d_model, vocab, generator=generator),
        w_unembed=torch.randn(d_model, vocab, generator=generator),
        ci_sum={"0.mlp.down": torch.ones(n)},
        component_act_sq_sum={"0.mlp.down": torch.ones(n)},
        logit_sq_sum=torch.ones(vocab),
        embed_token_count=torch.ones(vocab, dtype=torch.int64),
        ci_threshold=0.0,
        n_tokens_processed=vocab,
    )
    blocks, ends, raw = Blocks(storage), ("0.mlp.down", "output"), Measure(normalized=False)
    whole = blocks.tile(*ends, raw)
    expected = storage.w_unembed.double().T @ storage.unembed_attr["0.mlp.down"].double()
    assert torch.equal(whole, expected.float())
    for part in range(1, 90, 7):
        assert torch.equal(blocks.tile(*ends, raw, slice(part)), whole[:, :part])
        assert torch.equal(blocks.tile(*ends, raw, slice(part, part + 1), slice(2, 9)), whole[2:9, part : part + 1])
        assert torch.equal(blocks.column(*ends, raw, part), whole[:, part])
    for token in range(vocab):
        assert torch.equal(blocks.row(*ends, raw, token), whole[token])
