"""A process that reads damaged files in bounded memory and time, and says how each reader ended."""

import logging
import multiprocessing
import os
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Literal

from benchmarks.fuzzing.kinds import KINDS, Kind
from lit_attr.errors import LitAttrError
from lit_attr.files.identity import FileIdentity

# All sizes in MB. A reader may take so much more than the process had, as 10^8 batches do, the most that are allowed.
MEMORY = 2000
# What the system refuses to give, a margin above that: some of it is asked for and never touched.
_ADDRESSES = 4096
# Seconds of the processor: a reader that takes longer fails. A process that does not answer for so many seconds, while
# others may use the processor, is killed.
SECONDS = 10.0
_PATIENCE = 300.0
# What is said of numbers and entries that are read when they are asked for, of a result that is open long since.
_NAMELESS = ("stored sums are not finite", "the provenance's", "the provenance: expected")
_MESSAGE = 4000  # characters of a message that a person may still read

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pytest", "benchmarks.fuzzing.kinds"])

Verdict = Literal["read", "refused", "failed"]


class _TooLongError(BaseException):
    """Not an `Exception`, which readers may catch."""


@dataclass(frozen=True)
class Outcome:
    """How a reader ended.

    Attributes:
        reader: Its name.
        verdict: `read`, `refused` with an exception of the package's own, or `failed`.
        message: The exception's, or what is wrong.
        seconds: Time of the processor that it took.
        megabytes: How much memory it took at most, beyond what the process had.
    """

    reader: str
    verdict: Verdict
    message: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


class Reading:
    """A process that reads one damaged file after another; one that dies is replaced.

    Args:
        folder: Empty folder for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: ForkServerProcess | None = None
        self._connection: Connection | None = None

    def read(self, kind: str, damaged: bytes) -> list[Outcome]:
        """Have a damaged file read by all its readers.

        Args:
            kind: Name of the kind of file.
            damaged: Its content.
        """
        connection = self._connected()
        try:
            connection.send((kind, damaged))
            if connection.poll(_PATIENCE):
                return connection.recv()
            what = f"did not answer for {_PATIENCE:.0f} s"
        except (EOFError, ConnectionError):
            what = "died"
        process = self._process
        self.close()
        return [Outcome("process", "failed", f"the process {what} (exit code {process and process.exitcode})")]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.join(0.5)  # of a dying process, for its exit code
            self._process.kill()
            self._process.join()
            self._process = self._connection = None

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection, other = _CONTEXT.Pipe()
            folder = self._folder / str(time.monotonic_ns())
            self._process = _CONTEXT.Process(target=_serve, args=(other, folder), daemon=True)
            self._process.start()
            other.close()
        return self._connection


def _serve(connection: Connection, folder: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress bars, and words of libraries in Rust
    logging.disable()
    warnings.simplefilter("ignore")
    os.makedirs(folder)
    os.chdir(folder)  # names in files may lead anywhere
    os.environ["HF_HUB_OFFLINE"] = "1"
    kinds, ready = {kind.name: kind for kind in KINDS}, dict[str, _Folder]()
    limit = int(_memory("VmSize")) + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit << 20, limit << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            name, damaged = connection.recv()
        except EOFError:
            return
        kind = kinds[name]
        if name not in ready:
            place = folder / name
            place.mkdir()
            kind.make(place)
            ready[name] = _Folder(place, kind)
        connection.send(ready[name].read(damaged))


class _Folder:
    """A folder of good files, one of which is damaged for a moment."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self._folder, self._kind = folder, kind
        self._path = kind.place(folder)
        self._good = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self._seen = {path: FileIdentity.of(path) for path in self._good}

    def read(self, damaged: bytes) -> list[Outcome]:
        outcomes = []
        for reader in self._kind.readers:
            self._path.write_bytes(damaged)
            outcomes.append(outcome_of(reader, self._folder, self._path))
            self._restore()
        return outcomes

    def _restore(self) -> None:
        """Remove what a reader has written, and put back what it has removed or replaced."""
        for there, _, names in os.walk(self._folder, topdown=False):
            for name in names:
                if (path := Path(there, name)) not in self._good:
                    path.unlink()
            if not any(path.is_relative_to(there) for path in self._good):
                os.rmdir(there)
        for path, content in self._good.items():
            if path != self._path and FileIdentity.of(path) != self._seen[path]:
                path.write_bytes(content)
                self._seen[path] = FileIdentity.of(path)


def outcome_of(reader: Callable[[Path], object], folder: Path, path: Path) -> Outcome:
    """Read a folder, and say how that ended.

    Args:
        reader: Reads it.
        folder: The folder.
        path: The damaged file in it.
    """
    verdict: Verdict = "read"
    message = ""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begin = _memory("VmRSS"), time.process_time()
    handler = signal.signal(signal.SIGPROF, _stop)
    try:
        # Of the processor's time: other processes may take the rest.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            reader(folder)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, handler)
    except LitAttrError as error:
        message = str(error)
        names = path.name in message or str(folder) in message or any(words in message for words in _NAMELESS)
        verdict = "refused" if names and len(message) <= _MESSAGE else "failed"
        if not names:
            message = f"does not name the file: {message[:_MESSAGE]}"
        elif len(message) > _MESSAGE:
            message = f"message of {len(message)} characters: {message[:200]}"
    except BaseException as error:  # whatever it is: that is the question
        verdict, message = "failed", "".join(traceback.format_exception(error))[-_MESSAGE:]
    seconds, taken = time.process_time() - begin, _memory("VmHWM") - before
    if taken > MEMORY:
        verdict, message = "failed", f"took {taken:.0f} MB of memory; {message}"
    return Outcome(reader.__name__, verdict, message, seconds, taken)


def _stop(*_: object) -> None:
    raise _TooLongError(f"took more than {SECONDS} s")


def _memory(entry: str) -> float:
    """An entry of the process's status, in MB."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(f"{entry}:"))
