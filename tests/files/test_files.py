import os
import stat

import pytest

from lit_attr.errors import StorageError
from lit_attr.files.publish import make_folder, publish


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


def test_permissions_follow_the_umask(tmp_path):
    mask = os.umask(0o027)
    try:
        publish(tmp_path / "a", lambda file: file.write(b"x"))
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


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


def test_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(StorageError, match=r"cannot write into the folder .* permission denied"):
        make_folder(tmp_path)
