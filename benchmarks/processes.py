"""The anonymous memory of processes, and a page cache without given files."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SAMPLE_SECONDS = 0.01


def anonymous_bytes(process: int | str = "self") -> int:
    """Bytes of a process's memory that is no mapped file; the process is this one, or that with an id."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def peak_anonymous_bytes() -> Iterator[list[int]]:
    """The greatest `anonymous_bytes` inside the block, sampled, as the one entry of a list."""
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            peak[0] = max(peak[0], anonymous_bytes())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()


def forget(paths: Iterable[Path]) -> None:
    """Drop files from the page cache."""
    os.sync()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
