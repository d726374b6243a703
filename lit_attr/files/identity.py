"""Telling files under one name apart."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from lit_attr.errors import StorageError


@dataclass(frozen=True)
class FileIdentity:
    """Tells whether a file is still the one that was there; equal if it is, and was not changed either.

    Attributes:
        device: Number of its file system.
        inode: Number of the file there.
        size: In bytes.
        modified: When its content was last changed, in nanoseconds since the epoch.
        changed: When anything of it was last changed, in nanoseconds since the epoch. A new name or other permissions
            count, and a copy has a time of its own, so that it is not compared.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int = field(compare=False)

    @classmethod
    def of(cls, path: Path) -> "FileIdentity | None":
        """The file that has a name now; None if there is none.

        Raises:
            StorageError: If that cannot be found out.
        """
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}") from error
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_same_file(self, other: "FileIdentity") -> bool:
        """Whether the two are one file, which may have been changed in place."""
        return (self.device, self.inode) == (other.device, other.inode)
