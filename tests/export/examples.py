"""Storages that exports and pictures are tested on."""

import json

import pytest

from lit_attr.query.explorer import Explorer
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.storage.examples import random_storage

PARTIAL = {"run_id": "s-1234abcd", "coverage": {"n_batches": 10, "batches": [[0, 4, 2]], "complete": False}}


def stored(tmp_path, **options) -> DatasetAttributionStorage:
    """A memory-mapped storage, as commands have it."""
    random_storage(**options).save(tmp_path / "stored.pt")
    return DatasetAttributionStorage.load(tmp_path / "stored.pt")


def opened(folder, storage) -> Explorer:
    """A storage that is written into a folder and opened for questions, with texts of tokens."""
    storage.save(folder / "stored.pt")
    vocabulary = {text_of("embed", index): index for index in range(5)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": " t0"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    return Explorer(folder / "stored.pt", folder / "tokenizer.json")


def text_of(layer, index):
    """A token's text."""
    return f" t{index}" if layer in ("embed", "output") else None


def all_edges(storage, metric="attr"):
    """Every edge that is not zero: source and target key to raw and normalised value, one by one."""
    from lit_attr.storage.blocks import Blocks

    blocks, found = Blocks(storage), {}
    for target in [*storage.ci_sum, "output"]:
        for source in blocks.source_layers(target, metric):
            for i in range(storage.layer_size(target)):
                for j in range(storage.layer_size(source)):
                    pair = f"{source}:{j}", f"{target}:{i}"
                    raw, normalized = (
                        storage.get_attribution(*pair, metric=metric, normalized=flag) for flag in (False, True)
                    )
                    if raw:
                        found[pair] = pytest.approx(raw, rel=1e-5), pytest.approx(normalized, rel=1e-5)
    return found
