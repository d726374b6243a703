"""Files in the other form, written tile by tile."""

import pytest
import torch

from lit_attr.cli.main import main
from lit_attr.errors import StorageError
from lit_attr.export.form import export_form
from lit_attr.storage import compact
from lit_attr.storage.compact import compacted
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.verify import verify
from lit_attr.storage.write import write_result
from tests.storage.examples import READ, random_sums, unembedding
from tests.storage.test_compact import DEAD, same, with_dead_sources


@pytest.mark.parametrize("piece", [1, 7, 1 << 22])
def test_there_and_back(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(compact, "_PIECE", piece)
    with_dead_sources(DEAD).save(tmp_path / "a.pt")
    content = DatasetAttributionStorage.load(tmp_path / "a.pt")
    there, back, again = (tmp_path / name for name in ("there.pt", "back.pt", "again.pt"))
    assert export_form(content, there, compact=True) == there
    small = DatasetAttributionStorage.load(there)
    assert same(small, compacted(content))
    export_form(small, back, compact=False)
    assert same(DatasetAttributionStorage.load(back), content)
    assert torch.equal(small.w_unembed, content.w_unembed)
    assert small.provenance == content.provenance
    export_form(content, again, compact=False)
    assert again.read_bytes() == back.read_bytes()
    for path in (there, back):
        assert verify(path)[0].startswith("digest: sha256")


def test_the_dense_form_is_that_of_a_harvest_byte_for_byte(tmp_path):
    write_result(tmp_path / "a.pt", {"part": random_sums()}, READ, unembedding(), 0.0, {"not_targets": {}})
    export_form(DatasetAttributionStorage.load(tmp_path / "a.pt"), tmp_path / "compact.pt", compact=True)
    export_form(DatasetAttributionStorage.load(tmp_path / "compact.pt"), tmp_path / "dense.pt", compact=False)
    assert (tmp_path / "dense.pt").read_bytes() == (tmp_path / "a.pt").read_bytes()


def test_nothing_is_replaced(tmp_path):
    content = with_dead_sources(DEAD)
    (tmp_path / "a.pt").write_text("mine")
    with pytest.raises(StorageError, match=r"a\.pt exists already"):
        export_form(content, tmp_path / "a.pt", compact=True)
    assert (tmp_path / "a.pt").read_text() == "mine"


def test_the_command(tmp_path, capsys):
    with_dead_sources(DEAD).save(tmp_path / "a.pt")
    assert main(["export", str(tmp_path / "a.pt"), "--to", "compact"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "compact.pt")
    assert main(["export", str(tmp_path / "compact.pt"), "--to", "dense", "--out", str(tmp_path / "b.pt")]) == 0
    assert same(*(DatasetAttributionStorage.load(tmp_path / name) for name in ("a.pt", "b.pt")))
    assert main(["export", str(tmp_path / "a.pt"), "--to", "dense", "--k", "3"]) == 2
    assert "--k is no option of --to dense, which has --out" in capsys.readouterr().err
