"""What a worker says of itself: where it runs, how it ended, and how it is started again."""

import os
import re
import shlex
import socket
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from json import dumps
from pathlib import Path
from typing import Literal, Self

import numpy as np

from lit_attr.data.batch_ids import to_ranges
from lit_attr.errors import LitAttrError
from lit_attr.files.temporary import create_file, remove_leftovers
from lit_attr.parts.ledger import Time

# What the shipped job scripts export.
_SCRIPT, _LOG = "LIT_ATTR_SCRIPT", "LIT_ATTR_LOG"
_READ_OF_LOG = 4096  # bytes
_LINES, _LONGEST = 3, 300
_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class WorkerRecord:
    """A worker's record of itself, in a small file beside the parts.

    Attributes:
        host: Name of its machine.
        process: Id of its process there.
        started: When it began, in seconds since the epoch.
        folder: Its working directory.
        command: The words of its command line.
        job: The scheduler's job, or task of an array; None without one.
        is_task: Whether that is a task of an array.
        script: The job script of `lit-attr submit`; None without one.
        log: The file that its standard output goes to; None if that is no file.
        log_inode: Number of that file on its file system, by which another machine knows it.
        state: Whether it works, has `done` its share, was `stopped` by a signal, and then perhaps `requeued`, or has
            `failed`.
        ended: When it ended, in seconds since the epoch; None while it works, and if it was killed.
        reason: What ended it, in one line.
    """

    host: str
    process: int
    started: Time
    folder: str
    command: list[str]
    job: str | None
    is_task: bool
    script: str | None
    log: str | None
    log_inode: int | None
    state: Literal["working", "done", "stopped", "requeued", "failed"] = "working"
    ended: Time | None = None
    reason: str | None = None

    @classmethod
    def of_this_process(cls) -> Self:
        """The record of this process, which begins to work."""
        log, log_inode = _log()
        is_task, script = "SLURM_ARRAY_JOB_ID" in os.environ, os.environ.get(_SCRIPT) or None
        place = socket.gethostname(), os.getpid(), time.time(), _working_directory()
        return cls(*place, _command_line(), slurm_job(), is_task, script, log, log_inode)

    def done(self) -> Self:
        """The record of a worker that has done all of its share."""
        return replace(self, state="done", ended=time.time())

    def ended_by(self, error: BaseException, *, stopped: bool, requeued: bool) -> Self:
        """The record of a worker that has ended early.

        Args:
            error: What ended it.
            stopped: Whether it was told to stop.
            requeued: Whether the scheduler will start it again.
        """
        name = "" if isinstance(error, LitAttrError) else f"{type(error).__name__}: "
        reason = _shown(name + " ".join(str(error).split()))
        state: Literal["requeued", "stopped", "failed"] = "requeued" if requeued else "stopped" if stopped else "failed"
        return replace(self, state=state, ended=time.time(), reason=reason)

    def write(self, path: Path) -> None:
        """Write it down, whole or not at all; not where the harvest was removed, or the disk is full."""
        remove_leftovers(path)
        with suppress(OSError):  # what matters of this is said elsewhere
            descriptor, temporary = create_file(path)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(dumps(asdict(self), ensure_ascii=False).encode(errors="replace"))  # paths may be no text
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def last_words(self) -> list[str]:
        """What ended it or, if that is not known, the last lines of its log, as far as it can be read from here."""
        if self.reason is not None:
            return [self.reason]
        text = b"" if self.log is None else _end_of_log(self.log, self.log_inode)
        lines = [_shown(line) for line in text.decode("utf-8", "replace").splitlines()]
        return [line for line in lines if line][-_LINES:]


def commands(records: Mapping[int, WorkerRecord]) -> list[str]:
    """The commands that start workers again, as few as possible.

    Args:
        records: The record of each worker, by the number that it has as a task of an array.
    """
    tasks: dict[str, list[int]] = {}
    others: list[str] = []
    for task, record in records.items():
        if record.script is None:
            others.append(f"cd {shlex.quote(record.folder)} && {shlex.join(record.command)}")
        elif record.is_task:
            tasks.setdefault(record.script, []).append(task)
        else:
            others.append(shlex.join(["sbatch", record.script]))
    arrays = [shlex.join(["sbatch", f"--array={_tasks(ranks)}", script]) for script, ranks in tasks.items()]
    return [*arrays, *dict.fromkeys(others)]


def slurm_job() -> str | None:
    """This SLURM job, or task of an array of them."""
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else job


def _tasks(ranks: list[int]) -> str:
    """Tasks of an array, in SLURM's form."""
    words: list[str] = []
    for first, last, step in to_ranges(np.array(sorted(ranks))):
        if last - first <= step:
            words += map(str, dict.fromkeys([first, last]))
        else:
            words.append(f"{first}-{last}" + (f":{step}" if step > 1 else ""))
    return ",".join(words)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed meanwhile: no reason to end
        return os.environ.get("PWD", os.sep)


def _command_line() -> list[str]:
    is_ours = bool(sys.argv) and Path(sys.argv[0]).name == "lit-attr"  # embedded, Python may have none
    return ["lit-attr", *sys.argv[1:]] if is_ours else list(sys.orig_argv)


def _log() -> tuple[str | None, int | None]:
    """The file of the standard output of this process, or of its job, and its inode."""
    try:
        path = os.environ.get(_LOG) or os.readlink("/proc/self/fd/1")
        status = os.stat(path)
    except OSError:
        return None, None
    return (path, status.st_ino) if stat.S_ISREG(status.st_mode) else (None, None)


def _end_of_log(path: str, inode: int | None) -> bytes:
    """The last whole lines of a log; nothing if it is not here, or another file has its name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):  # the latter for what is no path
        return b""
    try:
        status = os.fstat(descriptor)
        if status.st_ino != inode or not stat.S_ISREG(status.st_mode):
            return b""
        start = max(0, status.st_size - _READ_OF_LOG)
        text = os.pread(descriptor, _READ_OF_LOG, start)
        return text.partition(b"\n")[2] if start and b"\n" in text else text
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _shown(line: str) -> str:
    """A line that a terminal can show, and that is not too long."""
    text = "".join(c if c.isprintable() else " " for c in _TERMINAL_CODE.sub("", line)).strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
