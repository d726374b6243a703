"""What commands do with a folder of files, one of which may be damaged."""

import json
import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from lit_attr.cli import status
from lit_attr.data.cache import TokenCache
from lit_attr.data.spec import DatasetSpec
from lit_attr.data.token_file import open_tokens
from lit_attr.data.tokenizer import load_tokenizer
from lit_attr.decomposition.harvest_db import alive_in_harvest, file_digest
from lit_attr.decomposition.load import load_run
from lit_attr.export.description import describe
from lit_attr.export.tensors import export_safetensors
from lit_attr.files import lock
from lit_attr.parts.freeze import current_generation
from lit_attr.parts.generations import begun_generation
from lit_attr.parts.merge import merge_harvest
from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.token_texts import TokenTexts
from lit_attr.query.tokenizer_formats import VOCABULARY
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.verify import verify
from lit_attr.topology.address import OUTPUT
from lit_attr.topology.words import MERGED_FILE
from lit_attr.view.viewed_result import ViewedResult

RESULT, OTHER_RESULT = MERGED_FILE, "other.pt"
TOKENS, DATABASE, TOKENIZER = "tokens.npy", "harvest.db", "tokenizer.json"
RUN_ID, N_COMPONENTS = "s-0before0", {"0.mlp.up": 3, "0.mlp.down": 4}
_PATHS = {"0.mlp.up": "h.0.mlp.c_fc", "0.mlp.down": "h.0.mlp.down_proj"}
SPEC = DatasetSpec(
    **{"dataset_name": "toy", "split": "train", "column_name": "story", "max_seq_len": 8, "is_tokenized": False},
    **{"streaming": False, "buffer_size": 10, "shuffle_each_epoch": True, "seed": 0},
    **{"tokenizer": "tokenizer.json", "eos_token": None},
)


def load_result(folder: Path) -> None:
    """What programs of goodfire-ai/spd do."""
    storage = DatasetAttributionStorage.load(folder / RESULT)
    for layer, size in {layer: len(values) for layer, values in storage.ci_sum.items()}.items():
        for index in range(min(size, 2)):
            storage.get_top_sources(f"{layer}:{index}", metric=storage.metrics[-1])
            storage.get_top_targets(f"{layer}:{index}", sign="negative")


def verify_result(folder: Path) -> None:
    """`lit-attr verify`."""
    verify(folder / RESULT)


def query_result(folder: Path) -> None:
    """`lit-attr query`, with the index that is there."""
    explorer = Explorer(folder / RESULT)
    explorer.matrix()
    explorer.edges(k=3)
    for layer, size in list(explorer.layers.items())[:3]:
        key = f"{layer}:{min(size, 2) - 1}"
        if explorer.has_source(explorer.reader.key(key)):
            explorer.targets(key, k=70, sign="both")
            explorer.subgraph([key])
    explorer.sources(f"{OUTPUT}:1", sign="both")


def view_result(folder: Path) -> None:
    """`lit-attr view`, before its first question."""
    viewed = ViewedResult(folder / RESULT)
    viewed.read_ahead()
    viewed.matrix("attr", normalized=True)
    _ = viewed.explorer.name, viewed.search


def export_result(folder: Path) -> None:
    """`lit-attr export`."""
    storage = DatasetAttributionStorage.load(folder / RESULT)
    describe(storage, "lit_attr.edges")
    export_safetensors(storage, folder / "export")


def index_result(folder: Path) -> None:
    """`lit-attr index`."""
    build_index(folder / RESULT)


def merge_results(folder: Path) -> None:
    """Adding results of disjoint data."""
    merged = DatasetAttributionStorage.merge([folder / RESULT, folder / OTHER_RESULT])
    merged.save(folder / "sum.pt")


def harvest_status(folder: Path) -> None:
    """`lit-attr status`."""
    with redirect_stdout(StringIO()):
        status.run([str(folder), "--silent_minutes", "0"])


def merge_parts(folder: Path) -> None:
    """`lit-attr merge --allow_partial`."""
    merge_harvest(folder, allow_partial=True)


def continue_harvest(folder: Path) -> None:
    """Workers that go on, by another number."""
    generation = begun_generation(folder)
    current_generation(folder, generation.plan, 3, generation.n_batches + 1)


def read_tokens(folder: Path) -> None:
    """The token file of a harvest."""
    rows = open_tokens(folder / TOKENS)
    torch.from_numpy(rows[:2].astype("int64")).sum()


def read_cache(folder: Path) -> None:
    """The cache of a dataset's tokens."""
    cache = TokenCache(SPEC, folder)
    cache.has(3)
    rows, order = cache.open()
    rows[:2].sum()
    if order is not None:
        order[:2].sum()


def read_database(folder: Path) -> None:
    """The targets of a harvest, from a `harvest.db`."""
    alive_in_harvest(folder / DATABASE, _PATHS, N_COMPONENTS, RUN_ID)
    file_digest(folder / DATABASE)


def read_run(folder: Path) -> None:
    """A decomposition run."""
    load_run(folder)


def read_language_model(folder: Path) -> None:
    """A language model that was not decomposed."""
    from lit_attr.decomposition.huggingface.pretrained import load_pretrained  # takes seconds

    load_pretrained(str(folder))


def tokenizer_texts(folder: Path) -> None:
    """The texts of tokens, for answers."""
    _ = TokenTexts(folder / TOKENIZER, 50).texts


def vocabulary_texts(folder: Path) -> None:
    """The texts of tokens, of a model with a vocabulary and merges."""
    _ = TokenTexts(folder / VOCABULARY, 5).texts


def tokenize(folder: Path) -> None:
    """Texts to tokens."""
    load_tokenizer(str(folder / TOKENIZER)).encode(["one story"])


def wait_for_lock(folder: Path) -> None:
    """The claim of a lock's holder."""
    claim = lock._read(folder / "lock.holder")
    lock._is_of_dead(claim, silence=0.0)
    lock._Watch(folder / "lock", folder / "lock.holder", "waiting")._holder()


def fill_cache(folder: Path, n_rows: int) -> Path:
    """A finished cache of tokens.

    Returns:
        Its folder.
    """
    cache = TokenCache(SPEC, folder)
    os.makedirs(cache.folder)
    (cache.folder / "progress.json").write_text(json.dumps({"n_rows": n_rows, "n_batches": 1, "complete": True}))
    (cache.folder / "tokens.bin").write_bytes(bytes(4 * n_rows * SPEC.max_seq_len))
    return cache.folder
