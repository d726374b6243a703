import polars
import pyarrow.parquet as parquet
import pytest
import torch

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.export.table import export_parquet
from tests.export.examples import PARTIAL, all_edges, opened
from tests.storage.examples import random_storage


def rows(path):
    """Source and target key to raw and normalised value."""
    table = parquet.read_table(path)
    found = {
        (f"{r['source_layer']}:{r['source_index']}", f"{r['target_layer']}:{r['target_index']}"): (
            r["value_raw"],
            r["value_normalized"],
        )
        for r in table.to_pylist()
    }
    assert len(found) == table.num_rows
    return found


def strongest(edges, k, group):
    """By brute force: the k edges of each group."""
    groups = {}
    for pair, (_, normalized) in edges.items():
        groups.setdefault(group(*pair), []).append((-abs(normalized.expected), pair))
    return {pair: edges[pair] for members in groups.values() for _, pair in sorted(members)[:k]}


def layer(key):
    return key.rpartition(":")[0]


@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
@pytest.mark.parametrize("k", [1, 4, 1000])
@pytest.mark.parametrize("tile", [1 << 22, 4])
@pytest.mark.parametrize("per", ["pair", "target"])
def test_edges_are_the_storages(tmp_path, monkeypatch, metric, k, tile, per):
    monkeypatch.setattr("lit_attr.query.strongest_edges._TILE", tile)
    monkeypatch.setattr("lit_attr.query.strongest_edges._N_SOURCES", min(tile, 8192) // 2)
    monkeypatch.setattr("lit_attr.export.table._ROW_GROUP", 7)
    storage = random_storage()
    path = export_parquet(opened(tmp_path, storage), tmp_path / "e.parquet", k=k, per=per, metric=metric)
    group = (lambda s, t: (layer(s), layer(t))) if per == "pair" else (lambda s, t: t)
    found, expected = rows(path), strongest(all_edges(storage, metric), k, group)
    assert found.keys() == expected.keys()
    assert all(found[pair] == expected[pair] for pair in found)
    assert set(parquet.read_table(path)["metric"].to_pylist()) == {metric}


def test_polars_reads_it_and_best_edges_come_first(tmp_path):
    path = export_parquet(opened(tmp_path, random_storage()), tmp_path / "e.parquet", k=3)
    frame = polars.read_parquet(path)
    assert frame.columns == [
        *("source_layer", "source_index", "source_token", "target_layer", "target_index", "target_token"),
        *("metric", "value_raw", "value_normalized"),
        *("standard_error_raw", "standard_error_normalized", "n_groups", "few_groups"),
    ]
    assert frame["standard_error_raw"].null_count() == frame["few_groups"].null_count() == len(frame) > 0
    for _, pair in frame.group_by("source_layer", "target_layer"):
        sizes = pair["value_normalized"].abs().to_list()
        assert sizes == sorted(sizes, reverse=True)
    tokens = frame.filter(polars.col("source_layer") == "embed")
    assert tokens["source_token"].to_list() == [f" t{index}" for index in tokens["source_index"]]
    assert frame.filter(polars.col("source_layer") == "0.attn.q")["source_token"].null_count() == 3


def test_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_attr.export.table._ROW_GROUP", 7)
    path = export_parquet(opened(tmp_path, random_storage()), tmp_path / "e.parquet", k=3)
    file = parquet.ParquetFile(path)
    assert file.num_row_groups > 1
    assert all(file.metadata.row_group(n).num_rows <= 7 + 3 for n in range(file.num_row_groups))


def test_metadata(tmp_path):
    path = export_parquet(
        opened(tmp_path, random_storage(provenance=PARTIAL)), tmp_path / "e.parquet", k=3, per="target"
    )
    metadata = {k.decode(): v.decode() for k, v in parquet.read_schema(path).metadata.items()}
    assert metadata["run_id"] == "s-1234abcd"
    assert metadata["partial"] == "3 of 10 batches"
    assert metadata["edges"] == "the 3 strongest of each target"


def test_zero_edges_are_left_out(tmp_path):
    storage = random_storage()
    for tensor in (*storage.regular_attr["0.mlp.up"].values(), storage.embed_attr["0.mlp.up"]):
        tensor[1] = 0.0
    path = export_parquet(opened(tmp_path, storage), tmp_path / "e.parquet", k=100)
    assert not [pair for pair in rows(path) if pair[1] == "0.mlp.up:1"]


def test_refusals(tmp_path):
    storage = random_storage()
    with pytest.raises(ConfigurationError, match="k must be a whole number of at least 1, found 0"):
        export_parquet(opened(tmp_path, storage), tmp_path / "e.parquet", k=0)
    with pytest.raises(ConfigurationError, match=r"per must be one of \['pair', 'target'\], found 'layer'"):
        export_parquet(opened(tmp_path, storage), tmp_path / "e.parquet", per="layer")
    with pytest.raises(ConfigurationError, match=r"metric must be one of \['attr', 'attr_abs'\], found 'abs'"):
        export_parquet(opened(tmp_path, storage), tmp_path / "e.parquet", metric="abs")
    for value in (torch.nan, torch.inf):
        storage.regular_attr["0.mlp.up"]["0.attn.q"][1, 0] = value
        with pytest.raises(StorageError, match="not finite"):
            export_parquet(opened(tmp_path, storage), tmp_path / "e.parquet")
    assert {path.name for path in tmp_path.iterdir()} == {"stored.pt", "tokenizer.json"}
