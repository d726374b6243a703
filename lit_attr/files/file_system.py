"""What a message says about the file system that refuses something: its type, its place, the cause, and what helps."""

import errno
import os
import pwd
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_OTHER_FOLDER = "choose another folder (LIT_ATTR_OUT_DIR, --writer.out_dir, --out)"


def file_system(path: Path) -> str:
    """The file system that a path is on, such as `nfs4 at /home`; `of an unknown type` where the system does not tell.

    Args:
        path: A file or folder, which need not exist.
    """
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return "of an unknown type"
    real = path.resolve()
    # Of mounts at one place the last one hides the others.
    mounts = {_unescape(line.split(" ")[1]): line.split(" ")[2] for line in lines}
    place = max((mount for mount in mounts if real.is_relative_to(mount)), key=len, default=None)
    return "of an unknown type" if place is None else f"{mounts[place]} at {place}"


def owner(path: Path) -> str:
    """The name of a file's owner; `an unknown user` if the file cannot be seen."""
    try:
        return user_name(path.stat().st_uid)
    except OSError:
        return "an unknown user"


def user_name(number: int) -> str:
    """A user's name, or the number where there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def describe_refusal(folder: Path) -> str:
    """Why an existing folder cannot be written into, and what helps."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"its file system ({file_system(folder)}) is mounted read-only: {_OTHER_FOLDER}"
    return (
        f"permission denied. It belongs to {owner(folder)}: they can make it writable for your group (chmod g+w), or "
        "you choose another folder"
    )


def explain(error: BaseException, path: Path) -> str:
    """What the system said when it refused to write a path, where that is, why, and what helps.

    Args:
        error: The system's error; others are given as they are.
        path: The file or folder, which need not exist, nor the folders above it.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    folder = next((above for above in path.absolute().parents if os.path.isdir(above)), Path("/"))
    where = f"its file system ({file_system(folder)})"
    if error.errno in (errno.EROFS, errno.EACCES) and not os.access(folder, os.W_OK | os.X_OK):
        return f"{error}; {describe_refusal(folder)}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        status = os.statvfs(folder)
        free, files = status.f_bavail * status.f_frsize / 1e6, status.f_favail
        left = f"has {free:.0f} MB and room for {files} files left"
        return f"{error}; {where} {left}: free some, ask for a larger quota, or choose a folder on another one"
    if error.errno == errno.EPERM:
        return f"{error}; {where} does not know how, or a file or folder is protected (lsattr): {_OTHER_FOLDER}"
    return f"{error}; {where}"


def _unescape(mount: str) -> str:
    """The kernel writes spaces, tabs, line breaks and backslashes of a name as octal numbers."""
    return re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), mount)
