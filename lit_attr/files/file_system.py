"""What a message says about the file system that refuses something: its type, its place, and whose a file is."""

import os
import pwd
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")


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
        return f"its file system ({file_system(folder)}) is mounted read-only: choose another folder"
    return (
        f"permission denied. It belongs to {owner(folder)}: they can make it writable for your group (chmod g+w), or "
        "you choose another folder"
    )


def _unescape(mount: str) -> str:
    """The kernel writes spaces, tabs, line breaks and backslashes of a name as octal numbers."""
    return re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), mount)
