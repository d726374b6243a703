import os
import re
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_attr.errors import StorageError
from lit_attr.files.file_system import file_system
from lit_attr.files.output import Product, new_folder
from lit_attr.files.publish import make_folder, publish
from tests.parts.faults import as_ordinary_user, in_child

# Root can give files to any group, others to their own.
_GROUP = 54321 if os.geteuid() == 0 else os.getegid()


def test_order_of_calls(tmp_path, monkeypatch):
    """The content is on the disk before the name points to it, and the name before the caller goes on."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def spy(*args, name=name, real=real):
            kind = "folder" if name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode) else "file"
            calls.append(f"{name} {kind}")
            return real(*args)

        monkeypatch.setattr(os, name, spy)
    publish(tmp_path / "a", lambda file: calls.append(f"write {file.write(b'x')}"))
    assert calls == ["write 1", "fsync file", "replace file", "fsync folder"]
    assert (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o002, 0o664, 0o2775), (0o027, 0o640, 0o2750)])
def test_permissions_follow_the_umask_and_a_setgid_folder(tmp_path, umask, file_mode, folder_mode):
    """In the shared folder of a group everything new is the group's, and as open as its users' umask says."""
    os.chown(tmp_path, -1, _GROUP)
    tmp_path.chmod(0o2775)

    def write():
        os.umask(umask)
        publish(tmp_path / "new" / "a", lambda file: file.write(b"x"))
        publish(tmp_path / "b", lambda file: file.write(b"x"), replace=False)
        with new_folder(tmp_path / "c", "m", Product("a", b"", b""), overwrite=False) as temporary:
            (temporary / "m").touch()

    assert in_child(write) == 0
    modes = {path.relative_to(tmp_path).as_posix(): path.stat() for path in tmp_path.rglob("*")}
    assert {name: stat.S_IMODE(status.st_mode) for name, status in modes.items()} == {
        **dict.fromkeys(("new/a", "b", "c/m"), file_mode),
        **dict.fromkeys(("new", "c"), folder_mode),
    }
    assert {status.st_gid for status in modes.values()} == {_GROUP}


def test_the_umask_is_never_changed(tmp_path, monkeypatch):
    """It is that of all threads."""
    monkeypatch.setattr(os, "umask", None)
    publish(tmp_path / "a", lambda file: file.write(b"x"))
    with new_folder(tmp_path / "c", "m", Product("a", b"", b""), overwrite=False):
        pass


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(StorageError, match=rf"cannot write {tmp_path}/a: .*{error.args[-1]}"):
        publish(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_other_exceptions_pass_and_leave_nothing(tmp_path):
    def write(file):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "a", write)
    assert list(tmp_path.iterdir()) == []


def test_folders_are_created(tmp_path):
    publish(tmp_path / "x" / "y" / "a", lambda file: file.write(b"x"))
    assert (tmp_path / "x" / "y" / "a").exists()


def test_folder_below_a_file(tmp_path):
    (tmp_path / "x").write_text("in the way")
    with pytest.raises(StorageError, match=rf"cannot create the folder {tmp_path}/x/y"):
        make_folder(tmp_path / "x" / "y")


def test_folder_of_another_user():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        Path(name).chmod(0o755)

        def make():
            with pytest.raises(StorageError, match=r"denied\. It belongs to root: they can make it writable .* or you"):
                make_folder(Path(name))

        as_ordinary_user(make)


def test_folder_on_a_file_system_that_is_read_only(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    where = rf"its file system \({re.escape(file_system(tmp_path))}\) is mounted read-only: choose another folder"
    with pytest.raises(StorageError, match=where):
        make_folder(tmp_path)


def test_file_systems_by_name():
    assert file_system(Path("/proc/self/none")) == "proc at /proc"
    assert file_system(Path("/proc")) == "proc at /proc"
    assert file_system(Path("/")).endswith(" at /")
