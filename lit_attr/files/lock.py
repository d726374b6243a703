"""A lock between processes, of one machine or of several."""

import errno
import fcntl
import json
import logging
import os
import secrets
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lit_attr.errors import StorageError, shown
from lit_attr.files.file_system import explain, file_system, owner, user_name

_log = logging.getLogger(__name__)
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
_HELD = frozenset({errno.EAGAIN, errno.EACCES})
_POLL = 0.2
_HEARTBEAT = 30.0  # seconds between two signs of life of a holder, and between two words to a waiting user
_PATIENCE = 600.0  # seconds without a sign of life after which nobody waits any longer
_MISSED = 5  # signs of life; network file systems may show the time of a file a minute late
_MAX_CLAIM = 1 << 12
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock that other processes may want.

    A holder takes the system's lock of the file, which a killed process gives back, and then creates a *claim* beside
    it, which says who it is. On file systems without locks (some NFS and Lustre mounts) the claim alone is the lock: it
    is created exclusively. Whoever has the system's lock may replace a claim that was made under such a lock, since its
    holder must be dead: at once if that was a process of this machine, and after some missed signs of life if it was
    one of another, since there are mounts that keep locks among the processes of one machine. Every other claim is
    respected.

    Args:
        path: The lock file; its folder is there.
        waiting: What is waited for while another process holds the lock, for the log.

    Raises:
        StorageError: If the lock file cannot be opened, or the holder has shown no sign of life for ten minutes; the
            message says who that is and what helps.
    """
    claim = path.with_name(f"{path.name}.holder")
    watch = _Watch(path, claim, waiting)
    descriptor = _open(path)
    try:
        while (has_locks := _try_lock(descriptor, path)) is None:
            watch.wait()
        token = secrets.token_hex(8)
        while not _create(claim, token, has_locks=has_locks):
            if has_locks and _is_of_dead(_read(claim), watch.silence):
                _remove(claim)
            else:
                watch.wait()
        try:
            with _signs_of_life(claim):
                yield
        finally:
            if _read(claim).get("token") == token:  # else a user has removed it, and another process taken the lock
                _remove(claim)
    finally:
        os.close(descriptor)


def machine() -> str:
    """Which machine this is: processes with another may not see the locks of this one's."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()  # containers share it, as they share locks
    except OSError:
        return socket.gethostname()


def _is_of_dead(claim: dict[str, Any], silence: float) -> bool:
    """Whether the holder of a claim is dead, seen by one who has the system's lock."""
    if not claim:  # it is being written, or its writer was killed in that moment
        return silence > _HEARTBEAT
    return bool(claim.get("has_locks")) and (claim.get("machine") == machine() or silence > _MISSED * _HEARTBEAT)


def _open(path: Path) -> int:
    try:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError:  # another user's; most file systems lock what is open for reading alone
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(
            f"cannot open the lock {path} of {owner(path)}: {explain(error, path)}. {_remedy(path)}"
        ) from error


def _try_lock(descriptor: int, path: Path) -> bool | None:
    """Whether the file is locked now: None if another process has the lock, False if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return None
        if error.errno in _NO_LOCKS:
            _log.info(f"the file system ({file_system(path)}) knows no locks; a file beside {path} takes their place")
            return False
        where = f"its file system is {file_system(path)}, its owner {owner(path)}"
        raise StorageError(f"cannot lock {path} ({where}): {error}. {_remedy(path)}") from error
    return True


def _create(claim: Path, token: str, *, has_locks: bool) -> bool:
    """Create the claim; False if there is one."""
    content = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": user_name(os.geteuid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "has_locks": has_locks,
        "machine": machine(),
        "token": token,
    }
    try:
        with open(claim, "x", encoding="utf-8") as file:
            json.dump(content, file)
    except FileExistsError:
        return False
    except OSError as error:
        with suppress(OSError):
            claim.unlink()
        raise StorageError(f"cannot write {claim}: {explain(error, claim)}") from error
    return True


def _remove(claim: Path) -> None:
    try:
        claim.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {claim} of {owner(claim)}: {error}. {_remedy(claim)}") from error


def _read(claim: Path) -> dict[str, Any]:
    """What a claim says; nothing if there is none, or it is being written."""
    try:
        with claim.open("rb") as file:
            content = json.loads(file.read(_MAX_CLAIM))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def _signs_of_life(claim: Path) -> Iterator[None]:
    """Touch the claim from time to time."""
    done = threading.Event()

    def touch() -> None:
        while not done.wait(_HEARTBEAT):
            with suppress(OSError):
                os.utime(claim)

    thread = threading.Thread(target=touch, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _Watch:
    """Waits for a lock, as long as its holder shows signs of life.

    Args:
        path: The lock file.
        claim: The file that its holder touches. Only that it changes counts: clocks of machines differ.
        waiting: What is waited for.
    """

    def __init__(self, path: Path, claim: Path, waiting: str) -> None:
        self._path, self._claim, self._waiting = path, claim, waiting
        self._touched: int | None = None
        self._alive = self._said = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds without a sign of life."""
        return time.monotonic() - self._alive

    def wait(self) -> None:
        """Wait for a moment.

        Raises:
            StorageError: If the holder has been silent for too long.
        """
        now = time.monotonic()
        try:
            touched = self._claim.stat().st_mtime_ns
        except OSError:
            touched = None
        if touched != self._touched:
            self._touched, self._alive = touched, now
        if self.silence > _PATIENCE:
            raise StorageError(
                f"gave up {self._waiting}: the lock {self._path} is held by {self._holder()}, who has shown no sign of "
                f"life for {_PATIENCE / 60:.0f} minutes. {_remedy(self._path, self._claim)}"
            )
        if now - self._said > _HEARTBEAT:
            _log.info(f"{self._waiting}: {self._holder()}")
            self._said = now
        time.sleep(_POLL)

    def _holder(self) -> str:
        claim = _read(self._claim)
        if not claim:
            return f"a process that does not say who it is (the lock file belongs to {owner(self._path)})"
        pid, user, host, since = (shown(claim.get(name)).strip("'") for name in ("pid", "user", "host", "since"))
        return f"process {pid} of {user} on {host}, since {since}"


def _remedy(*paths: Path) -> str:
    return f"If no process uses it any more, remove it and start again: {shlex.join(['rm', '-f', *map(str, paths)])}"
