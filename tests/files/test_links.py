"""Putting a file into place where nothing may be replaced, with and without hard links."""

import errno
import os
import tempfile
import threading
from pathlib import Path

import pytest

from lit_attr.errors import StorageError
from lit_attr.files import links
from lit_attr.files.file_system import file_system
from lit_attr.files.publish import keep, publish
from tests.parts.faults import as_ordinary_user, names_in, refuse_links


@pytest.fixture(params=[None, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK], ids=str)
def link_error(request, monkeypatch):
    """How the file system answers to a hard link; None where it knows them."""
    if request.param is not None:
        refuse_links(monkeypatch, request.param)
    return request.param


def write(path, text):
    publish(path, lambda file: file.write(text), replace=False)


def test_a_new_file(tmp_path, link_error):
    write(tmp_path / "ä b", b"x")
    assert (tmp_path / "ä b").read_bytes() == b"x"
    assert (tmp_path / "ä b").stat().st_nlink == 1
    assert names_in(tmp_path) == {"ä b"}


@pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
def test_what_is_there_stays(tmp_path, link_error, kind):
    path = tmp_path / "a"
    {"file": path.touch, "folder": path.mkdir, "broken link": lambda: path.symlink_to("nowhere")}[kind]()
    with pytest.raises(FileExistsError):
        write(path, b"new")
    assert names_in(tmp_path) == {"a"}
    assert path.is_symlink() or path.is_dir() or path.read_bytes() == b""


@pytest.mark.parametrize("has_links", [True, False])
def test_of_many_at_once_one_succeeds(tmp_path, monkeypatch, has_links):
    """Without a look at the name before, which would hide that the rename replaces nothing by itself."""
    if not has_links:
        refuse_links(monkeypatch)
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    barrier, outcomes = threading.Barrier(8), []

    def race(number):
        barrier.wait()
        for attempt in range(20):
            try:
                write(tmp_path / str(attempt), str(number).encode())
                outcomes.append((attempt, str(number).encode()))
            except FileExistsError:
                pass

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(outcomes) == {attempt: (tmp_path / str(attempt)).read_bytes() for attempt in range(20)}
    assert len(outcomes) == 20
    assert names_in(tmp_path) == {str(attempt) for attempt in range(20)}


@pytest.mark.parametrize("missing", ["the flag", "the call"])
def test_neither_links_nor_such_renames(tmp_path, monkeypatch, missing):
    refuse_links(monkeypatch)

    def renameat2(*_):
        links.ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(links, "_renameat2", lambda: renameat2 if missing == "the flag" else None)
    with pytest.raises(StorageError) as refused:
        write(tmp_path / "a", b"x")
    for part in (f"{tmp_path}/a", f"({file_system(tmp_path)}) knows neither hard links nor", "LIT_ATTR_OUT_DIR"):
        assert part in str(refused.value)
    assert names_in(tmp_path) == set()


def test_a_folder_without_permission_is_no_missing_link(tmp_path, monkeypatch):
    refuse_links(monkeypatch, errno.EACCES)
    with pytest.raises(StorageError, match=r"cannot write .*/a: .*Permission denied"):
        write(tmp_path / "a", b"x")
    assert names_in(tmp_path) == set()


def test_a_link_that_the_kernel_refuses():
    """The file of another user must not be linked (`fs.protected_hardlinks`): it is copied."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "theirs").write_bytes(b"content")
        is_refused = os.geteuid() == 0 and Path("/proc/sys/fs/protected_hardlinks").read_text() == "1\n"

        def act():
            keep(folder / "theirs", folder / "kept")
            assert (folder / "kept").stat().st_nlink == (1 if is_refused else 2)

        as_ordinary_user(act)
        (folder / "theirs").unlink()
        assert (folder / "kept").read_bytes() == b"content"
