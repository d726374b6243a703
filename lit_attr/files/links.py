"""New names for files, also where a file system knows no hard links (exFAT, some FUSE and network ones)."""

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from lit_attr.errors import StorageError
from lit_attr.files.file_system import file_system

# How file systems without hard links answer; EPERM also where the kernel protects another user's file, EMLINK where one
# has too many names already.
NO_HARD_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NO_SUCH_RENAME = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def put_new(temporary: Path, path: Path) -> None:
    """Give a complete file its final name, unless something has that name.

    Both ways are one step of the file system: of several processes exactly one succeeds, whatever is killed when, and
    the name is never seen with another content. A check and a rename would be two.

    Raises:
        FileExistsError: If something has the name.
        StorageError: If the file system can do this in neither way.
        OSError: If it refuses for another reason.
    """
    try:
        os.link(temporary, path)  # unlike a plain rename, it refuses to replace
    except OSError as error:
        if error.errno not in NO_HARD_LINK:
            raise
    else:
        temporary.unlink()
        return
    try:
        _rename_to_new(temporary, path)
    except OSError as error:
        if error.errno not in _NO_SUCH_RENAME:
            raise
        raise StorageError(
            f"cannot write {path}: its file system ({file_system(path.parent)}) knows neither hard links nor renames "
            "that replace nothing, without which two processes could write it at once. Choose a folder on another one "
            "(LIT_ATTR_OUT_DIR, --writer.out_dir, --out)"
        ) from error


def _rename_to_new(source: Path, target: Path) -> None:
    if os.path.lexists(target):  # file systems may look at the flag before they look at the names
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    renameat2 = _renameat2()
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = os.fsencode(source), os.fsencode(target)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


@cache
def _renameat2() -> Callable[..., Any] | None:
    """Linux' own, for which Python has no name; None elsewhere."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function
