"""Results in both forms, of which the compact one leaves something out."""

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import strategies as st

from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.storage.compact import compacted
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.query.examples import LAYERS, storages


@st.composite
def sparse_storages(draw):
    """Dense storages with sources that never occurred, tokens that did not, and components that were no targets."""
    storage, generator = draw(storages()), torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    for layer in LAYERS:
        storage.ci_sum[layer][torch.rand(len(storage.ci_sum[layer]), generator=generator) < 0.4] = 0
    dead = {layer: storage.ci_sum[layer] == 0 for layer in LAYERS} | {"embed": storage.embed_token_count == 0}
    unmeasured = {layer: torch.rand(len(values), generator=generator) < 0.3 for layer, values in storage.ci_sum.items()}
    for nested in (storage.regular_attr, storage.regular_attr_abs):
        for target, by_source in nested.items():
            for source, block in by_source.items():
                block[:, dead[source]], block[unmeasured[target]] = 0, 0
    for by_target in (storage.embed_attr, storage.embed_attr_abs):
        for target, block in by_target.items():
            block[:, dead["embed"]], block[unmeasured[target]] = 0, 0
    for source, block in [*storage.unembed_attr.items(), ("embed", storage.embed_unembed_attr)]:
        block[:, dead[source]] = 0
    not_targets = {layer: mask.nonzero()[:, 0].tolist() for layer, mask in unmeasured.items()}
    return DatasetAttributionStorage(**{**vars(storage), "provenance": {"not_targets": not_targets}})


@contextmanager
def both_forms(storage, *, indexed=False):
    """A result in the dense and in the compact form, opened."""
    with TemporaryDirectory() as folder:
        paths = Path(folder) / "dense.pt", Path(folder) / "compact.pt"
        for path, form in zip(paths, (storage, compacted(storage)), strict=True):
            form.save(path)
            if indexed:
                build_index(path)
        yield tuple(map(Explorer, paths))
