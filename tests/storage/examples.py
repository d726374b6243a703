"""Small storages with random numbers."""

import torch

from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums

TOPOLOGY = Topology(
    n_components={"0.mlp.up": 3, "0.mlp.down": 4, "0.attn.q": 2},
    sources={
        "0.mlp.up": ("embed", "0.attn.q"),
        "0.attn.q": ("embed",),
        "output": ("embed", "0.mlp.down"),
        "0.mlp.down": ("0.mlp.up",),
    },
    vocab_size=5,
    d_model=6,
)


def random_sums(seed: int = 0, dtype: torch.dtype = torch.float64) -> Sums:
    generator = torch.Generator().manual_seed(seed)
    sums = Sums.zeros(TOPOLOGY, dtype)
    for name, tensor in sums.named():
        if name in ("token_count", "n_tokens"):
            continue
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
        if not name.startswith("attr"):
            tensor.abs_()
    sums.token_count.copy_(torch.tensor([3, 0, 2, 1, 4]) + seed)
    sums.n_tokens.copy_(sums.token_count.sum())
    return sums


def unembedding(seed: int = 100) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(TOPOLOGY.vocab_size, TOPOLOGY.d_model, generator=generator).T


def random_storage(seed: int = 0, **options) -> DatasetAttributionStorage:
    return DatasetAttributionStorage.from_sums(random_sums(seed), unembedding(), 0.0, **options)
