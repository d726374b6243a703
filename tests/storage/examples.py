"""Small storages with random numbers.

Each input has as many entries as its target has components, and these read one each: sums of `attr` are those of
targets already, to the last bit. What read vectors do is tested in `test_summed.py`.
"""

from copy import deepcopy
from dataclasses import replace

import torch

from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.harvested_metrics import HarvestedMetrics
from lit_attr.topology.graph import Topology
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums
from tests.sums import full_sums

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
    inputs={target: target for target in ("0.mlp.up", "0.attn.q", "output", "0.mlp.down")},
    widths={"0.mlp.up": 3, "0.attn.q": 2, "output": 6, "0.mlp.down": 4},
)
ALIVE = {layer: torch.ones(n, dtype=torch.bool) for layer, n in TOPOLOGY.n_components.items()}
READ = ReadVectors(TOPOLOGY.inputs, {layer: torch.eye(n) for layer, n in TOPOLOGY.n_components.items()}, ALIVE)

ATTR_ALONE = HarvestedMetrics("attr").to_entries()


def random_sums(seed: int = 0, dtype: torch.dtype = torch.float64) -> Sums:
    generator = torch.Generator().manual_seed(seed)
    sums = full_sums(TOPOLOGY, dtype)
    for name, tensor in sums.named():
        if not tensor.is_floating_point():
            continue
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
        if not name.startswith("attr"):
            tensor.abs_()
    sums.token_count.copy_(torch.tensor([3, 0, 2, 1, 4]) + seed)
    for count in (sums.n_tokens, sums.n_abs_tokens):
        count.copy_(sums.token_count.sum())
    return sums


def unembedding(seed: int = 100) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(TOPOLOGY.vocab_size, TOPOLOGY.d_model, generator=generator).T


def random_storage(seed: int = 0, **options) -> DatasetAttributionStorage:
    return DatasetAttributionStorage.from_sums(random_sums(seed), READ, unembedding(), 0.0, **options)


def partly_harvested(not_targets: dict[str, list[int]], seed: int = 0, **provenance) -> DatasetAttributionStorage:
    """A storage as a harvest leaves it whose targets were not all components: the rows of the others are zero."""
    storage = random_storage(seed, provenance={"not_targets": deepcopy(not_targets), **provenance})
    for layer, indices in not_targets.items():
        for by_source in (storage.regular_attr, storage.regular_attr_abs):
            for block in by_source.get(layer, {}).values():
                block[indices] = 0
        for by_target in (storage.embed_attr, storage.embed_attr_abs):
            if layer in by_target:
                by_target[layer][indices] = 0
    return storage


def without_abs(storage: DatasetAttributionStorage, provenance: dict | None) -> DatasetAttributionStorage:
    """The same storage as a harvest of `attr` alone writes it."""
    empty: dict[str, dict] = {"regular_attr_abs": {}, "embed_attr_abs": {}}
    if (errors := storage.standard_errors) is not None:
        groups = {
            name: {kind: groups for kind, groups in getattr(errors, name).items() if kind != "attr_abs"}
            for name in ("n_groups", "n_all_groups")
        }
        errors = replace(errors, **empty, **groups)
    return DatasetAttributionStorage(**{**vars(storage), **empty, "provenance": provenance, "standard_errors": errors})


def attr_alone(seed: int = 0, provenance: dict | None = ATTR_ALONE) -> DatasetAttributionStorage:
    """A storage of `attr` alone."""
    return without_abs(random_storage(seed), provenance)


def from_a_share(share: float, n_tokens: int, seed: int = 0) -> DatasetAttributionStorage:
    """A storage whose `attr_abs` comes from a share of the sequences."""
    return random_storage(seed, provenance=HarvestedMetrics("both", share, n_tokens).to_entries())
