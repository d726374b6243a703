"""What happens to a file that is being published at every single call: refused, or the last one."""

import errno
import os
import signal
import tempfile
from pathlib import Path

import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.files.json_file import publish_json, read_json
from lit_attr.files.publish import publish
from lit_attr.files.seal import check_seal
from lit_attr.parts.generations import newest_generation
from lit_attr.parts.ledger import Ledger
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.part import read_part, write_part
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.write import write_result
from tests.parts.faults import Calls, as_ordinary_user, fail_at, in_child, kill_at, names_in
from tests.parts.harvests import PLAN, begin, complete_harvest, sums_of
from tests.storage.examples import READ, TOPOLOGY, unembedding
from tests.sums import layout_of


class Part:
    """A worker's part, of one batch or of the other."""

    name = "dataset_attributions_rank_0.pt"

    @staticmethod
    def write(path, batch):
        write_part(path, sums_of([batch]), Ledger("plan", 1, 0, 1, [[batch, batch, 1]], 2**batch))

    @staticmethod
    def read(path):
        sums, ledger = read_part(path, layout_of(TOPOLOGY))
        (batch,) = ledger.ids.tolist()
        for (name, found), (_, right) in zip(sums.named(), sums_of([batch]).named(), strict=True):
            assert torch.equal(found, right), name
        return batch


class Result:
    """A merged file."""

    name = "dataset_attributions.pt"

    @staticmethod
    def write(path, batch):
        write_result(path, {"a": sums_of([batch]), "b": sums_of([])}, READ, unembedding(), 0.0, {"batch": batch})

    @staticmethod
    def read(path):
        check_seal(path)
        storage = DatasetAttributionStorage.load(path)
        batch = storage.provenance["batch"]
        right = DatasetAttributionStorage.from_sums(sums_of([batch]), READ, unembedding(), 0.0)
        for (name, found), (_, value) in zip(storage.named_sums(), right.named_sums(), strict=True):
            assert torch.equal(found, value.to(found.dtype)), name
        return batch


class Json:
    """A small file without a seal."""

    name = "plan.json"

    @staticmethod
    def write(path, batch):
        publish_json(path, {"batch": batch}, replace=True)

    @staticmethod
    def read(path):
        return read_json(path)["batch"]


KINDS = pytest.mark.parametrize("kind", [Part, pytest.param(Result, marks=pytest.mark.slow), Json])


def calls_of(kind, path):
    with Calls() as calls:
        kind.write(path, 1)
    return calls.names


@KINDS
def test_order_of_calls(kind, tmp_path):
    """The bytes are on the disk before the name points to them, and the name before the caller goes on."""
    names = calls_of(kind, tmp_path / kind.name)
    steps = [name for i, name in enumerate(names) if name != "write" or names[i - 1] != "write"]
    assert steps[0] == "create"
    assert steps[-3:] == ["fsync file", "replace", "fsync folder"]
    assert "write" in steps[:-3]
    if kind is not Json:
        assert steps[1] == "posix_fallocate"
    assert max(i for i, name in enumerate(names) if name in ("write", "pwrite", "truncate")) == len(names) - 4


def test_order_of_calls_where_nothing_may_be_replaced(tmp_path):
    with Calls() as calls:
        publish(tmp_path / "a", lambda file: file.write(b"x"), replace=False)
    assert calls.names == ["create", "write", "fsync file", "link", "unlink", "fsync folder"]


@KINDS
def test_every_call_refused_in_turn(kind, tmp_path):
    path = tmp_path / kind.name
    kind.write(path, 0)
    names = calls_of(kind, tmp_path / "elsewhere" / kind.name)
    for number, name in enumerate(names):
        error = (errno.ENOSPC, errno.EIO)[number % 2]
        with Calls(fail_at(number, error)), pytest.raises(StorageError, match=os.strerror(error)) as refused:
            kind.write(path, 1)
        assert str(path if name != "create" else tmp_path) in str(refused.value)
        # Only the last call comes after the new file is in place.
        assert kind.read(path) == (1 if number == len(names) - 1 else 0), name
        assert names_in(tmp_path) == {kind.name, "elsewhere"}, name
    assert name == "fsync folder"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_every_call_refused_where_nothing_may_be_replaced(error, tmp_path):
    for number, name in enumerate(["create", "write", "fsync file", "link", "unlink", "fsync folder"]):
        folder = tmp_path / str(number)
        with Calls(fail_at(number, error)), pytest.raises(StorageError, match=os.strerror(error)):
            publish(folder / "a", lambda file: file.write(b"x"), replace=False)
        assert names_in(folder) == ({"a"} if name in ("unlink", "fsync folder") else set()), name


@KINDS
@pytest.mark.parametrize("every", [25, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_call_in_turn(kind, every, tmp_path):
    """The quick form leaves out most of the small writes of an archive."""
    path = tmp_path / kind.name
    names = calls_of(kind, tmp_path / "elsewhere" / kind.name)
    for number, name in enumerate(names):
        if name in ("write", "pwrite") and names[number - 1] == name and number % every:
            continue
        kind.write(path, 0)

        def write(number=number):
            with Calls(kill_at(number)):
                kind.write(path, 1)

        assert in_child(write) == -signal.SIGKILL
        assert kind.read(path) == (1 if name == "fsync folder" else 0), (number, name)
        assert kind.name in names_in(tmp_path)
    kind.write(path, 1)
    assert kind.read(path) == 1
    assert names_in(tmp_path) == {kind.name, "elsewhere"}, "what the killed writers left behind is removed"


def test_first_file_killed_at_every_call_in_turn(tmp_path):
    for number in range(6):
        path = tmp_path / str(number) / "a.json"

        def write(path=path, number=number):
            with Calls(kill_at(number)):
                publish_json(path, {"x": 1}, replace=False)

        assert in_child(write) == -signal.SIGKILL
        if path.exists():
            assert number > 3
            with pytest.raises(FileExistsError):
                publish_json(path, {"x": 2}, replace=False)
            assert read_json(path) == {"x": 1}
        else:
            publish_json(path, {"x": 2}, replace=False)
            assert read_json(path) == {"x": 2}


def test_living_writers_keep_their_temporary_files(tmp_path):
    """Two writers of one file: each publishes a whole one, the later counts."""

    def write_slowly(file):
        file.write(b"slow")
        publish(tmp_path / "a", lambda other: other.write(b"fast"))
        assert (tmp_path / "a").read_bytes() == b"fast"

    publish(tmp_path / "a", write_slowly)
    assert (tmp_path / "a").read_bytes() == b"slow"
    assert names_in(tmp_path) == {"a"}


def test_a_temporary_file_taken_for_a_leftover_is_made_again(tmp_path, monkeypatch):
    """Between its creation and its lock, another writer may remove it."""
    import fcntl

    real, taken = fcntl.flock, []

    def flock(descriptor, operation):
        if not taken:
            taken.extend(tmp_path.glob(".a.*.tmp"))
            taken[0].unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    publish(tmp_path / "a", lambda file: file.write(b"x"))
    assert (tmp_path / "a").read_bytes() == b"x"
    assert names_in(tmp_path) == {"a"}


def test_leftovers_of_other_files_stay(tmp_path):
    (tmp_path / ".b.x.tmp").write_bytes(b"")
    (tmp_path / ".a.x.tmp").write_bytes(b"")
    publish(tmp_path / "a", lambda file: file.write(b"x"))
    assert names_in(tmp_path) == {"a", ".b.x.tmp"}


def test_file_systems_without_locks(tmp_path, monkeypatch):
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".a.x.tmp").write_bytes(b"")
    publish(tmp_path / "a", lambda file: file.write(b"x"))
    assert names_in(tmp_path) == {"a", ".a.x.tmp"}, "nobody knows whether its writer lives"


def test_nothing_is_replaced_where_it_may_not_be(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        publish(tmp_path / "a", lambda file: file.write(b"new"), replace=False)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names_in(tmp_path) == {"a"}


def test_space_is_reserved_before_anything_is_written(tmp_path, monkeypatch):
    asked = []

    def refuse(descriptor, start, length):
        asked.append((start, length))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    for module in ("storage.write", "files.seal"):
        monkeypatch.setattr(f"lit_attr.{module}._OVERHEAD", 0)
    for write in (Part.write, Result.write):
        with pytest.raises(StorageError, match="No space left on device"):
            write(tmp_path / "a", 0)
    sums = sums_of([0])
    (zero, part), (_, result) = asked
    assert zero == 0
    assert part >= sums.nbytes
    assert result >= sums.nbytes / 2
    assert names_in(tmp_path) == set()


@KINDS
def test_no_more_is_kept_than_was_written(kind, tmp_path):
    kind.write(tmp_path / kind.name, 0)
    assert (tmp_path / kind.name).stat().st_size < 50_000


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    for kind in (Part, Result, Json):
        with pytest.raises(StorageError, match=r"cannot write into the folder .* permission denied"):
            kind.write(tmp_path / kind.name, 0)


def test_files_and_folders_without_permission():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        complete_harvest(folder)
        parts = folder / "worker_states"
        (parts / "dataset_attributions_rank_1.pt").chmod(0)
        for path in (folder, parts):
            path.chmod(0o555)

        def act():
            with pytest.raises(StorageError, match=r"cannot write into the folder .* permission denied"):
                Json.write(folder / "a", 0)
            with pytest.raises(
                StorageError, match=r"cannot read .*rank_1\.pt: .*Permission denied.*batches 3 \(1-7 st"
            ):
                merge_harvest(folder)
            with pytest.raises(StorageError, match=r"cannot write into the folder .*worker_states"):
                begin(folder, 2)

        def look():
            with pytest.raises(StorageError, match="cannot read"):
                newest_generation(folder, PLAN)

        as_ordinary_user(act)
        folder.chmod(0)
        as_ordinary_user(look)
        folder.chmod(0o755)
