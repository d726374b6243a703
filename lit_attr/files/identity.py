"""Telling files under one name apart."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileIdentity:
    """Tells whether a file is still the one that was there.

    Attributes:
        inode: Of the file.
        size: In bytes.
        modified: In nanoseconds since the epoch.
    """

    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> "FileIdentity | None":
        """Of the file that is there now; None if there is none."""
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)
