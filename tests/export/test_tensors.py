import json

import pytest
import torch
from safetensors import safe_open

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.export.description import describe
from lit_attr.export.tensors import INDEX_FILE, export_safetensors, named_tensors
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.export.examples import PARTIAL, stored
from tests.storage.examples import attr_alone, from_a_share, partly_harvested, random_storage


def read(folder):
    """All tensors by the library, found through the index, and the index's metadata."""
    index = json.loads((folder / INDEX_FILE).read_text())
    tensors = {}
    for name, file in index["weight_map"].items():
        with safe_open(folder / file, "pt") as shard:
            tensors[name] = shard.get_tensor(name)
            assert {k: v for k, v in index["metadata"].items() if k != "total_size"} == shard.metadata()
    return tensors, index["metadata"]


@pytest.mark.parametrize("shard_mb", [1000, 2e-4, 1e-9])
def test_every_number_is_there(tmp_path, shard_mb):
    storage = stored(tmp_path)
    written = export_safetensors(storage, tmp_path / "out", shard_mb=shard_mb)
    tensors, metadata = read(tmp_path / "out")
    assert sorted(written) == sorted((tmp_path / "out").iterdir())
    assert torch.equal(tensors.pop("w_unembed"), storage.w_unembed)
    assert torch.equal(tensors["regular_attr/0.mlp.up/0.attn.q"], storage.regular_attr["0.mlp.up"]["0.attn.q"])
    expected = list(storage.named_sums())
    assert len(tensors) == len(expected)
    for (name, _), (_, right) in zip(named_tensors(storage), expected, strict=False):
        assert torch.equal(tensors[name], right), name
        assert tensors[name].dtype == right.dtype
    assert metadata["total_size"] == sum(t.nbytes for _, t in named_tensors(storage))


def test_shards_are_no_larger_than_asked_for(tmp_path):
    storage = stored(tmp_path)
    limit = 250
    written = export_safetensors(storage, tmp_path / "out", shard_mb=limit / 1e6)
    largest = max(tensor.nbytes for _, tensor in named_tensors(storage))
    assert largest <= limit
    for path in written[1:]:
        with safe_open(path, "pt") as shard:
            assert sum(shard.get_tensor(name).nbytes for name in shard.keys()) <= limit  # noqa: SIM118
    assert len(written) > 3


def test_numbers_of_every_kind_and_layout(tmp_path):
    storage = random_storage()
    # Transposed views, a single column, another precision.
    turned = {target: block.T.contiguous().T for target, block in storage.embed_attr.items()}
    odd = {**vars(storage), "embed_attr": turned, "w_unembed": storage.w_unembed.to(torch.bfloat16)}
    storage = type(storage)(**odd)
    assert not storage.embed_attr["0.mlp.up"].is_contiguous()
    export_safetensors(storage, tmp_path / "out")
    tensors, _ = read(tmp_path / "out")
    assert torch.equal(tensors["w_unembed"], storage.w_unembed)
    assert torch.equal(tensors["embed_attr/0.mlp.up"], storage.embed_attr["0.mlp.up"])
    assert torch.equal(tensors["embed_token_count"], storage.embed_token_count)


def test_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_attr.export.tensors._TILE", 3)
    storage = random_storage()
    export_safetensors(storage, tmp_path / "out")
    tensors, _ = read(tmp_path / "out")
    for name, tensor in named_tensors(storage):
        assert torch.equal(tensors[name], tensor), name


def test_metadata(tmp_path):
    storage = stored(tmp_path, provenance=PARTIAL)
    export_safetensors(storage, tmp_path / "out")
    _, metadata = read(tmp_path / "out")
    assert metadata["format_version"] == "1"
    assert metadata["run_id"] == "s-1234abcd"
    assert int(metadata["n_tokens"]) == storage.n_tokens_processed
    assert float(metadata["ci_threshold"]) == storage.ci_threshold
    assert json.loads(metadata["provenance"]) == PARTIAL
    assert json.loads(metadata["coverage"]) == PARTIAL["coverage"]
    assert metadata["partial"] == "3 of 10 batches"


def test_metadata_name_what_was_not_harvested(tmp_path):
    """A zero row of a tensor says nothing of itself; the wandb artifact has these entries without the provenance."""
    partly_harvested({"0.mlp.up": [0, 2], "0.mlp.down": [], "0.attn.q": [1]}).save(tmp_path / "stored.pt")
    storage = DatasetAttributionStorage.load(tmp_path / "stored.pt")
    assert json.loads(describe(storage, "any")["not_harvested"]) == {"0.mlp.up": 2, "0.attn.q": 1}
    assert describe(stored(tmp_path), "any")["not_harvested"] == "{}"
    damaged = random_storage(provenance={"not_targets": {"0.mlp.up": [9]}})
    with pytest.raises(StorageError, match=r"not_targets of 0\.mlp\.up is damaged"):
        describe(damaged, "any")


def test_metadata_say_which_metrics_were_harvested(tmp_path):
    """The exports' readers have nothing else to tell a metric that was not harvested by, or one from a share."""
    said = "attr_abs from 25 % of the sequences (3 of 10 tokens)"
    for storage, metrics, sample in (
        (random_storage(), ["attr", "attr_abs"], ""),
        (from_a_share(0.25, 3), ["attr", "attr_abs"], said),
        (attr_alone(), ["attr"], ""),
    ):
        export_safetensors(storage, tmp_path / "out", overwrite=True)
        tensors, metadata = read(tmp_path / "out")
        assert (json.loads(metadata["metrics"]), metadata["abs_sample"]) == (metrics, sample)
        assert any("attr_abs/" in name for name in tensors) == ("attr_abs" in metrics)


def test_files_of_other_tools_have_no_provenance(tmp_path):
    export_safetensors(stored(tmp_path), tmp_path / "out")
    _, metadata = read(tmp_path / "out")
    assert (metadata["provenance"], metadata["coverage"], metadata["partial"]) == ("null", "null", "")


def test_refusals(tmp_path):
    storage = stored(tmp_path)
    for size in (0, -1, float("nan")):
        with pytest.raises(ConfigurationError, match=f"shard_mb must be positive, found {size}"):
            export_safetensors(storage, tmp_path / "out", shard_mb=size)
    export_safetensors(storage, tmp_path / "out", shard_mb=1e-9)
    with pytest.raises(StorageError, match="out exists already; --overwrite replaces it"):
        export_safetensors(storage, tmp_path / "out")
    written = export_safetensors(storage, tmp_path / "out", overwrite=True)
    assert sorted(written) == sorted((tmp_path / "out").iterdir())
