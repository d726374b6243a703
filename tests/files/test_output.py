import os

import pytest

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.files.output import new_folder, write_file
from lit_attr.optional import require

MARK = "index.json"


def fill(path, text="new", overwrite=False):
    with new_folder(path, MARK, overwrite=overwrite) as temporary:
        (temporary / MARK).write_text(text)


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "x", MARK, overwrite=False) as temporary:
        (temporary / MARK).write_text("")
        assert not (tmp_path / "x").exists()
    assert os.listdir(tmp_path) == ["x"]
    assert os.listdir(tmp_path / "x") == [MARK]


def test_a_failure_leaves_what_was_there(tmp_path):
    fill(tmp_path / "x", "old")
    with (
        pytest.raises(StorageError, match=r"cannot write .*nothing"),
        new_folder(tmp_path / "x", MARK, overwrite=True) as temporary,
    ):
        (temporary / "nothing").unlink()
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x" / MARK).read_text() == "old"


def test_only_an_export_is_replaced_and_only_on_request(tmp_path):
    fill(tmp_path / "x", "old")
    with pytest.raises(StorageError, match="x exists already; --overwrite replaces it"):
        fill(tmp_path / "x")
    fill(tmp_path / "x", "new", overwrite=True)
    assert (tmp_path / "x" / MARK).read_text() == "new"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(
        StorageError, match=r"mine is not replaced: it is no earlier export, which would hold index\.json"
    ):
        fill(tmp_path / "mine", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["mine", "x"]


def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path):
    (tmp_path / ".x.dead.tmp").mkdir()
    (tmp_path / ".x.dead.tmp" / "shard").write_text("large")
    with new_folder(tmp_path / "x", MARK, overwrite=False) as living:
        fill(tmp_path / "x")
        assert living.exists()
        assert not (tmp_path / ".x.dead.tmp").exists()
        (tmp_path / "x" / MARK).unlink()
        (tmp_path / "x").rmdir()


def test_files(tmp_path):
    path = tmp_path / "new" / "x.bin"
    write_file(path, lambda file: file.write(b"old"), overwrite=False)
    with pytest.raises(StorageError, match="exists already; --overwrite replaces it"):
        write_file(path, lambda file: file.write(b"new"), overwrite=False)
    write_file(path, lambda file: file.write(b"new"), overwrite=True)
    assert path.read_bytes() == b"new"
    with pytest.raises(StorageError, match="a folder is there, expected a file's name"):
        write_file(tmp_path / "new", lambda file: None, overwrite=True)


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "x.bin"
    with pytest.raises(StorageError, match="exists already"):
        write_file(path, lambda file: path.write_text("theirs"), overwrite=False)
    assert path.read_text() == "theirs"


def test_a_missing_library_names_its_extra():
    with pytest.raises(
        ConfigurationError, match=r"the library 'no_such' is needed here: pip install 'lit_attr\[plot\]'"
    ):
        require("no_such.module", "plot")
