"""Temporary files and folders: what is to be put into place when it is complete.

They have names of their own beside the final one, and the permissions that the umask, and a setgid folder above, give
to everything new. Each is locked for as long as its writer lives: what a killed writer left behind can be told from
what a living one is writing, and removed.
"""

import fcntl
import glob
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def create_file(path: Path) -> tuple[int, Path]:
    """Create an open, empty file that is to become another.

    Args:
        path: The final name.

    Returns:
        The descriptor and the temporary name.

    Raises:
        OSError: If it cannot be created.
    """
    while True:
        temporary = name_beside(path)
        # The system applies umask and setgid itself: reading the umask means to change it for all threads.
        descriptor = os.open(temporary, _FILE, 0o666)
        if _hold(descriptor, temporary):
            return descriptor, temporary


def create_folder(path: Path) -> tuple[int, Path]:
    """Create an empty folder that is to become another; arguments, result and errors as for `create_file`."""
    while True:
        temporary = name_beside(path)
        os.mkdir(temporary)
        with suppress(FileNotFoundError):  # another writer took it for a leftover before it was locked
            descriptor = os.open(temporary, _FOLDER)
            if _hold(descriptor, temporary):
                return descriptor, temporary


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files and folders of killed writers; a living one holds a lock.

    Args:
        path: The final name.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):  # without locks nobody knows whether its writer lives
            descriptor = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(leftover)
            finally:
                os.close(descriptor)


def remove(temporary: Path) -> None:
    """Remove a temporary file, or a folder with all that is in it, if it is there."""
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


def name_beside(path: Path) -> Path:
    """A new temporary name beside a final one."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _hold(descriptor: int, temporary: Path) -> bool:
    """Lock a new file or folder; False, and closed, if another writer took it for a leftover before."""
    with suppress(OSError):  # some file systems know no locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), os.lstat(temporary)):
            return True
    os.close(descriptor)
    return False
