"""A lock between processes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger(__name__)
_PATIENCE = 30.0  # seconds between two words to a waiting user


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock that other processes may want; a killed process gives it back.

    Args:
        path: Of the lock file.
        waiting: What to log from time to time while another process holds it.
    """
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=_PATIENCE)
            break
        except Timeout:
            _log.info(waiting)
    try:
        yield
    finally:
        lock.release()
