"""Who works on a harvest, so that one that is abandoned before its first commit can be removed."""

import errno
import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lit_attr.files.lock import machine
from lit_attr.topology.words import (
    GENERATION_LOCK,
    HEADER_FILE,
    PARTS_FOLDER,
    PLAN_FILE,
    READ_VECTORS_FILE,
    SHARD_FOLDER,
)

# What a harvest, and each of its target shards, has before its first commit.
_NAMES = "|".join(map(re.escape, (PLAN_FILE, PARTS_FOLDER, HEADER_FILE, READ_VECTORS_FILE)))
_BEFORE_COMMIT = re.compile(
    rf"{_NAMES}|{SHARD_FOLDER}\d+|generation_\d+(_provenance)?\.json|{re.escape(GENERATION_LOCK)}(\.holder)?"
)
# What says of a worker that it works, or how it ended; it may be written at this moment.
_RECORD = re.compile(r"worker_\d+(_generation_\d+)?\.json|\.worker_[^/]*\.json\.[0-9a-f]+\.tmp")
# How often records are removed that are written meanwhile: each process of a trainer says once how it ended.
_MAX_ATTEMPTS = 100


class Presence:
    """A mark that a process works on a harvest, from now on.

    The mark is a shared lock on the harvest's plan, which ends with the process, however that ends. Some network file
    systems keep locks among the processes of one machine (Lustre with `localflock`, BeeGFS, NFS with `local_lock`), so
    that there is a file too, named after the machine, for the processes of other machines.

    Attributes:
        folder: The harvest's folder, with its plan.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._plan: BinaryIO | None = None
        self._file = folder / PARTS_FOLDER / f"{_own_files()}{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            self._plan = _open(folder / PLAN_FILE)
            with suppress(OSError):  # some file systems know no locks: then nothing is ever removed
                fcntl.flock(self._plan, fcntl.LOCK_SH)
        if self.counts:
            try:
                self._file.parent.mkdir(exist_ok=True)
                self._file.touch()
            except FileNotFoundError:  # one on another machine is removing the harvest
                self.leave()
            except OSError:  # nothing can be written, which is said elsewhere
                pass

    @property
    def counts(self) -> bool:
        """Whether the plan is still the harvest's: the last process that left may have removed it meanwhile."""
        if self._plan is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._plan.fileno()), (self.folder / PLAN_FILE).stat())
        except FileNotFoundError:
            return False

    def leave(self) -> None:
        """Work on it no longer."""
        with suppress(OSError):
            self._file.unlink()
        if self._plan is not None:
            self._plan.close()
            self._plan = None

    def abandon(self) -> bool:
        """Work on it no longer, and remove it if nobody else does and nothing was ever committed or written.

        Returns:
            Whether it was removed.
        """
        try:
            return self._plan is not None and self.counts and _lock_alone(self._plan) and _remove(self.folder)
        finally:
            self.leave()


def _own_files() -> str:
    """How the names of the files begin by which processes of this machine say that they are present."""
    return f".present_on_{machine()}_"


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("r+b")  # over NFS the lock of one who is alone needs the right to write
    except PermissionError:
        return path.open("rb")


def _lock_alone(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(folder: Path) -> bool:
    """Remove a harvest without a part; the plan, which is locked, goes last: one who comes now waits for the lock."""
    try:
        shards = sorted(folder.glob(f"{SHARD_FOLDER}*"))
        if not all(map(_is_before_commit, (folder, *shards))):
            return False
        for place in (folder, *shards):  # in the harvest's own, other machines say that they are present
            if (place / PARTS_FOLDER).exists() and not _remove_parts_folder(place / PARTS_FOLDER):
                return False
        for place in (*shards, folder):
            for name in set(os.listdir(place)) - {PLAN_FILE}:
                (place / name).unlink()
            if place != folder:
                place.rmdir()
        (folder / PLAN_FILE).unlink()
        folder.rmdir()
    except OSError:
        return False
    return True


def _is_before_commit(place: Path) -> bool:
    """Whether nothing is in a folder of generations, and in its folder of parts, but what precedes a first commit."""
    names = os.listdir(place)
    parts = os.listdir(place / PARTS_FOLDER) if PARTS_FOLDER in names else []
    return all(map(_BEFORE_COMMIT.fullmatch, names)) and all(map(_is_no_part, parts))


def _is_no_part(name: str) -> bool:
    # No other process of this machine has the lock.
    return name.startswith(_own_files()) or _RECORD.fullmatch(name) is not None


def _remove_parts_folder(parts: Path) -> bool:
    """Remove the folder of parts, unless there is a part, or one is being written, or another machine is present."""
    for _ in range(_MAX_ATTEMPTS):
        names = os.listdir(parts)
        if not all(map(_is_no_part, names)):
            return False
        for name in names:
            (parts / name).unlink(missing_ok=True)
        try:
            parts.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return True
    return False
