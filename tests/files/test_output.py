import os
import socket

import pytest
import torch

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.files.output import Product, new_folder, write_file
from lit_attr.files.seal import publish_sealed
from lit_attr.optional import require

INDEX = "index.json"
PRODUCT = Product("a poem", b"POEM", b"of mine")
OURS = b"POEM\n" + bytes(20) + b"of mine"


def fill(path, text=OURS, overwrite=False):
    with new_folder(path, INDEX, PRODUCT, overwrite=overwrite) as temporary:
        (temporary / INDEX).write_bytes(text)


def write(path, text=OURS + b" new", overwrite=True):
    write_file(path, lambda file: file.write(text), PRODUCT, overwrite=overwrite)


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "x", INDEX, PRODUCT, overwrite=False) as temporary:
        (temporary / INDEX).write_text("")
        assert not (tmp_path / "x").exists()
    assert os.listdir(tmp_path) == ["x"]
    assert os.listdir(tmp_path / "x") == [INDEX]


def test_a_failure_leaves_what_was_there(tmp_path):
    fill(tmp_path / "x")
    with (
        pytest.raises(StorageError, match=r"cannot write .*nothing"),
        new_folder(tmp_path / "x", INDEX, PRODUCT, overwrite=True) as temporary,
    ):
        (temporary / "nothing").unlink()
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x" / INDEX).read_bytes() == OURS


def test_only_folders_that_hold_an_export_alone_are_replaced(tmp_path):
    fill(tmp_path / "x")
    with pytest.raises(StorageError, match="x exists already; --overwrite replaces it, if it holds a poem alone"):
        fill(tmp_path / "x")
    fill(tmp_path / "x", OURS + b" new", overwrite=True)
    assert (tmp_path / "x" / INDEX).read_bytes() == OURS + b" new"
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to("x")
    (tmp_path / "file").write_bytes(OURS)
    for name in ("mine", "link", "file"):
        with pytest.raises(
            StorageError, match=rf"{name} is not replaced: it is no earlier export, .* with index\.json"
        ):
            fill(tmp_path / name, overwrite=True)
    (tmp_path / "x" / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match=r"x is not replaced: thesis\.tex in it is a file of another kind"):
        fill(tmp_path / "x", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "mine", "x"]
    assert sorted(os.listdir(tmp_path / "x")) == [INDEX, "thesis.tex"]


def test_what_appears_in_a_folder_meanwhile_is_kept(tmp_path):
    fill(tmp_path / "x")
    with (
        pytest.raises(StorageError, match=r"x is not replaced: thesis\.tex in it"),
        new_folder(tmp_path / "x", INDEX, PRODUCT, overwrite=True),
    ):
        (tmp_path / "x" / "thesis.tex").write_text("years of work")
    assert os.listdir(tmp_path) == ["x"]
    assert sorted(os.listdir(tmp_path / "x")) == [INDEX, "thesis.tex"]


def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path):
    (tmp_path / ".x.dead.tmp").mkdir()
    (tmp_path / ".x.dead.tmp" / "shard").write_text("large")
    with new_folder(tmp_path / "x", INDEX, PRODUCT, overwrite=False) as living:
        fill(tmp_path / "x")
        assert living.exists()
        assert not (tmp_path / ".x.dead.tmp").exists()
        (tmp_path / "x" / INDEX).unlink()
        (tmp_path / "x").rmdir()


def test_files(tmp_path):
    path = tmp_path / "new" / "x.bin"
    write(path, OURS, overwrite=False)
    with pytest.raises(StorageError, match="exists already; --overwrite replaces it, if it is a poem"):
        write(path, overwrite=False)
    write(path)
    assert path.read_bytes() == OURS + b" new"
    with pytest.raises(StorageError, match="a folder is there, expected a file's name"):
        write(tmp_path / "new")


def sealed(path):
    publish_sealed(path, lambda file: torch.save({"a": torch.zeros(3)}, file), 12)


FOREIGN = {
    "a file of a harvest, such as a result or a part": sealed,
    "a file of PyTorch, such as a result or a checkpoint": lambda path: torch.save([1], path),
    "an array of NumPy, such as a token file": lambda path: path.write_bytes(b"\x93NUMPY\1\0"),
    "a safetensors file": lambda path: path.write_bytes((64).to_bytes(8, "little") + b'{"a": 1}'),
    "a JSON file": lambda path: path.write_bytes(b'{"POEM": "of mine"}'),
    "an empty file": lambda path: path.touch(),
    "a file of another kind": lambda path: path.write_bytes(b"POEM of another"),
    "no regular file": lambda path: os.mkfifo(path),
}


@pytest.mark.parametrize("name", ["itself", "symbolic link", "hard link"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_nothing_foreign_is_replaced_under_any_name(tmp_path, kind, name):
    real, path = tmp_path / "real", tmp_path / "out"
    FOREIGN[kind](real)
    {"itself": real.rename, "symbolic link": lambda p: p.symlink_to("real"), "hard link": lambda p: os.link(real, p)}[
        name
    ](path)
    before = path.lstat()
    link = "a link to real, " if name == "symbolic link" else ""
    with pytest.raises(StorageError, match=f"out is not replaced: it is {link}{kind}.*replaces only a poem. Choose"):
        write(path)
    assert path.lstat() == before
    assert len(os.listdir(tmp_path)) == (1 if name == "itself" else 2)


def test_sockets_and_links_to_nothing_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    (tmp_path / "broken").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in ("broken", "socket"):
            with pytest.raises(StorageError, match="no regular file"):
                write(tmp_path / name)
    assert sorted(os.listdir()) == ["broken", "socket"]


def test_a_link_to_an_earlier_product_is_replaced_and_the_product_stays(tmp_path):
    write(tmp_path / "old", OURS)
    (tmp_path / "link").symlink_to("old")
    os.link(tmp_path / "old", tmp_path / "hard")
    for name in ("link", "hard"):
        write(tmp_path / name)
        assert (tmp_path / name).read_bytes() == OURS + b" new"
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / "old").read_bytes() == OURS


@pytest.mark.parametrize("was_there", [True, False])
def test_what_is_put_there_meanwhile_is_not_replaced(tmp_path, was_there):
    path = tmp_path / "x.bin"
    if was_there:
        path.write_bytes(OURS)
    with pytest.raises(StorageError, match=r"x\.bin"):
        write_file(path, lambda file: path.write_text("theirs"), PRODUCT, overwrite=was_there)
    assert path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_missing_library_names_its_extra():
    with pytest.raises(
        ConfigurationError, match=r"the library 'no_such' is needed here: pip install 'lit_attr\[plot\]'"
    ):
        require("no_such.module", "plot")
