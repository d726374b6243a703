import pytest

from benchmarks.large_storage import write_large_storage
from lit_attr.export.table import export_parquet
from lit_attr.export.tensors import export_safetensors
from lit_attr.harvest.memory import PeakMemory
from lit_attr.plots.figures import mass_figure
from lit_attr.query.explorer import Explorer

TILE = 1 << 14


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A storage of hundreds of tiles."""
    path = tmp_path_factory.mktemp("large") / "stored.pt"
    assert write_large_storage(path, n_components=60, n_blocks=8, vocab=2000, d_model=16) > 300 * TILE * 4
    return Explorer(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "work",
    [
        lambda large, path: export_safetensors(large.storage, path, shard_mb=1),
        lambda large, path: export_parquet(large, path, k=5),
        lambda large, path: export_parquet(large, path, k=5, per="target"),
        lambda large, path: mass_figure(large),
    ],
    ids=["safetensors", "parquet per pair", "parquet per target", "mass"],
)
def test_memory_is_that_of_some_tiles(large, tmp_path, monkeypatch, work):
    monkeypatch.setattr("lit_attr.export.tensors._TILE", TILE)
    monkeypatch.setattr("lit_attr.query.strongest_edges._TILE", TILE)
    monkeypatch.setattr("lit_attr.query.strongest_edges._N_SOURCES", 1 << 9)
    monkeypatch.setattr("lit_attr.query.layer_pairs._SIDE", 1 << 7)
    with PeakMemory() as memory:
        work(large, tmp_path / "out")
    # Tiles, and the rows that are to be written together.
    assert memory.peak < 24 * TILE * 4
