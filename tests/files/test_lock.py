"""Locks between processes: of living and dead holders, with and without those of the file system."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from lit_attr.errors import StorageError
from lit_attr.files import lock
from lit_attr.files.file_system import file_system, user_name
from lit_attr.files.lock import locked
from tests.parts.faults import as_ordinary_user, in_child

NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]


@pytest.fixture(params=[None, *NO_LOCKS], ids=lambda error: "locks" if error is None else errno.errorcode[error])
def flock_error(request, monkeypatch):
    """How the file system answers to a lock; None where it knows them."""
    if request.param is not None:
        refuse_locks(monkeypatch, request.param)
    return request.param


def refuse_locks(monkeypatch, error):
    def flock(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nobody waits for minutes."""
    for name, seconds in (("_POLL", 0.01), ("_HEARTBEAT", 0.1), ("_PATIENCE", 0.5)):
        monkeypatch.setattr(lock, name, seconds)


def hold_and_die(path):
    """In another process: killed while it has the lock."""

    def act():
        with locked(path, "waiting"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(act) == -signal.SIGKILL


def _count(path, counter, barrier):
    barrier.wait()
    for _ in range(10):
        with locked(path, "waiting"):
            number = int(counter.read_text())
            time.sleep(0.002)
            counter.write_text(str(number + 1))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_one_process_at_a_time(tmp_path, flock_error, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE", 60.0)
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    workers = [context.Process(target=_count, args=(tmp_path / "lock", counter, barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert counter.read_text() == "40"
    assert not (tmp_path / "lock.holder").exists()


@pytest.mark.parametrize("flock_error", [None, errno.ENOLCK], indirect=True)
def test_a_holder_that_shows_signs_of_life_is_waited_for(tmp_path, flock_error, caplog):
    """However long it takes; the log says who it is."""
    caplog.set_level("INFO", logger="lit_attr")
    taken, done = threading.Event(), threading.Event()

    def hold():
        with locked(tmp_path / "lock", "waiting"):
            taken.set()
            time.sleep(1.2)  # longer than anybody waits for a silent one
            done.set()

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(30)
    with locked(tmp_path / "lock", "waiting for the other"):
        assert done.is_set()
    holder.join()
    who = f"process {os.getpid()} of {user_name(os.geteuid())} on {socket.gethostname()}, since 2"
    assert f"waiting for the other: {who}" in caplog.text
    said = f"the file system ({file_system(tmp_path)}) knows no locks"
    assert (said in caplog.text) == (flock_error is not None)


def test_the_lock_of_a_killed_holder_is_free(tmp_path):
    hold_and_die(tmp_path / "lock")
    assert (tmp_path / "lock.holder").exists()
    with locked(tmp_path / "lock", "waiting"):
        assert json.loads((tmp_path / "lock.holder").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock.holder").exists()


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_holder_on_a_machine_that_keeps_its_locks_to_itself(tmp_path, monkeypatch, is_alive):
    """Some network file systems do: only that the claim is touched shows that its holder lives."""
    path = tmp_path / "lock"
    with monkeypatch.context() as patch:
        patch.setattr(lock, "machine", lambda: "another")
        hold_and_die(path)
    beats = 5 if is_alive else 0
    released = threading.Event()

    def beat():
        for _ in range(beats):
            time.sleep(0.1)
            os.utime(path.with_name("lock.holder"))
        released.set()

    thread = threading.Thread(target=beat)
    thread.start()
    began = time.monotonic()
    monkeypatch.setattr(lock, "_MISSED", 3)
    with locked(path, "waiting"):
        assert released.is_set()
        assert time.monotonic() - began > 0.1 * (3 + beats)
    thread.join()


@pytest.mark.parametrize("content", ["", '{"host": "a', "[]"])
def test_a_holder_that_was_killed_before_it_said_who_it_is(tmp_path, content):
    (tmp_path / "lock.holder").write_text(content)
    with locked(tmp_path / "lock", "waiting"):
        assert json.loads((tmp_path / "lock.holder").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("flock_error", NO_LOCKS[:1], indirect=True)
def test_without_locks_a_silent_holder_is_named_with_the_remedy(tmp_path, flock_error):
    """Nobody can know whether it is dead, at another machine: that is said, and what to do."""
    path = tmp_path / "the lock"
    hold_and_die(path)
    claim = json.loads((tmp_path / "the lock.holder").read_text())
    with pytest.raises(StorageError) as refused, locked(path, "waiting for a download"):
        pass
    message = str(refused.value)
    assert message.startswith(f"gave up waiting for a download: the lock {path} is held by process {claim['pid']} of ")
    assert f"on {socket.gethostname()}, since {claim['since']}, who has shown no sign of life for" in message
    remedy = message.rpartition(": ")[2]
    assert remedy == f"rm -f '{path}' '{path}.holder'"
    assert os.system(remedy) == 0
    with locked(path, "waiting"):
        pass


def test_a_claim_made_without_locks_counts_where_there_are_locks(tmp_path, monkeypatch):
    """Two machines may mount one file system differently."""
    with monkeypatch.context() as patch:
        refuse_locks(patch, errno.ENOSYS)
        hold_and_die(tmp_path / "lock")
    with pytest.raises(StorageError, match="gave up waiting: the lock"), locked(tmp_path / "lock", "waiting"):
        pass


def test_a_stopped_holder_is_named(tmp_path):
    """It keeps the system's lock, but works no more."""
    context = multiprocessing.get_context("spawn")
    taken = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", taken), daemon=True)
    holder.start()
    assert taken.wait(60)
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        with (
            pytest.raises(StorageError, match=f"held by process {holder.pid} of .* no sign of life"),
            locked(tmp_path / "lock", "waiting"),
        ):
            pass
    finally:
        holder.kill()
        holder.join()
    with locked(tmp_path / "lock", "waiting"):
        pass


def _hold(path, taken):
    with locked(path, "waiting"):
        taken.set()
        time.sleep(600)


def test_a_holder_of_an_earlier_version_does_not_say_who_it_is(tmp_path):
    with open(tmp_path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(StorageError, match="held by a process that does not say who it is"),
            locked(tmp_path / "lock", "waiting"),
        ):
            pass


def test_an_error_gives_the_lock_back(tmp_path, flock_error):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), locked(tmp_path / "lock", "waiting"):
            raise KeyboardInterrupt


def test_a_refusal_for_another_reason(tmp_path, monkeypatch):
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(StorageError) as refused, locked(tmp_path / "lock", "waiting"):
        pass
    for part in (f"cannot lock {tmp_path}/lock", file_system(tmp_path), "Input/output error", "rm -f "):
        assert part in str(refused.value)


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_the_lock_file_of_another_user(mode):
    """A readable one can be locked; the other is named, with its owner."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        hold_and_die(folder / "lock")
        (folder / "lock").chmod(mode)
        folder.chmod(0o777)

        def act():
            if mode == 0o644:
                with locked(folder / "lock", "waiting"):
                    assert json.loads((folder / "lock.holder").read_text())["user"] == user_name(65534)
                return
            with pytest.raises(StorageError) as refused, locked(folder / "lock", "waiting"):
                pass
            for part in (f"cannot open the lock {folder}/lock of root: ", "Permission denied", f"rm -f {folder}/lock"):
                assert part in str(refused.value)

        as_ordinary_user(act)


def test_no_space_for_the_claim(tmp_path, monkeypatch):
    def dump(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json, "dump", dump)
    with (
        pytest.raises(StorageError, match=r"cannot write .*lock\.holder: .*No space left"),
        locked(tmp_path / "lock", "waiting"),
    ):
        pass
    assert not (tmp_path / "lock.holder").exists()
