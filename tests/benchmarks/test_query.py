"""The benchmark of questions, on a storage that is small."""

import json

from benchmarks.large_storage import write_large_storage
from benchmarks.query import _QUESTIONS, ask, build
from lit_attr.query.index_file import index_path
from lit_attr.storage.verify import verify


def test_a_small_one(tmp_path, capsys):
    path = tmp_path / "dataset_attributions.pt"
    assert write_large_storage(path, n_components=40, n_blocks=3, vocab=1300, d_model=4) == path.stat().st_size
    assert path.stat().st_blocks * 512 >= path.stat().st_size  # no holes
    assert "tokens: 26000, as counted one by one" in verify(path)
    build(path)
    assert json.loads(capsys.readouterr().out)["bytes"] == index_path(path).stat().st_size
    for name, *keys in _QUESTIONS.values():
        ask(path, name, *keys)
        found = json.loads(capsys.readouterr().out)
        assert found["warm_median"] > 0
        # It may be less: what other tests had is given back.
        assert found["anonymous_mb"] < found["anonymous_mb_of_imports"] + 50
