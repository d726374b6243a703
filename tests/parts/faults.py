"""Everything that publishing a file asks of the system, call by call: to be recorded, refused, or not survived."""

import errno
import os
import signal
import stat
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

_FUNCTIONS = ("posix_fallocate", "fsync", "replace", "link", "pwrite", "unlink")


class Calls:
    """The calls inside a `with`, by name and in order.

    Args:
        before: Called with number and name of each call, before it is made; may raise, or end the process. With the
            data of a write, and how to write, where it is one.
    """

    def __init__(self, before: Callable[..., None] = lambda *_: None):
        self.names: list[str] = []
        self._before = before
        self._patch = pytest.MonkeyPatch()

    def __enter__(self):
        self._wrap(os, "open", "create", lambda path, flags, *_: flags & os.O_CREAT)
        for name in _FUNCTIONS:
            self._wrap(os, name, name)
        real = os.fdopen
        self._patch.setattr(os, "fdopen", lambda *args, **options: _File(real(*args, **options), self))
        return self

    def __exit__(self, *_):
        self._patch.undo()

    def note(self, name, *write):
        self.names.append(name)
        self._before(len(self.names) - 1, name, *write)

    def _wrap(self, module, attribute, name, counts=lambda *_: True):
        real = getattr(module, attribute)

        def call(*args, **options):
            if not counts(*args):
                return real(*args, **options)
            kind = ""
            if attribute == "fsync":
                kind = " folder" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else " file"
            self.note(name + kind)
            return real(*args, **options)

        self._patch.setattr(module, attribute, call)


class _File:
    def __init__(self, file, calls):
        self._file, self._calls = file, calls

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        self._calls.note("write", data, self._file)
        return self._file.write(data)

    def truncate(self, *args):
        self._calls.note("truncate")
        return self._file.truncate(*args)


def in_child(action: Callable[[], object]) -> int:
    """Run in a forked process; the signal that ended it, negative, or 0; 1 if it raised anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking while threads run, which this process does not need
        child = os.fork()
    if not child:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def as_ordinary_user(action: Callable[[], object]) -> None:
    """Run without the rights of root, in a child where this process has them; raises if it does."""
    if os.geteuid() != 0:
        action()
        return

    def drop_and_act():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        action()

    assert in_child(drop_and_act) == 0


def kill_at(target: int) -> Callable[..., None]:
    """End this process at a call, a write half done."""

    def before(number, name, data=None, file=None):
        if number == target:
            if file is not None:
                view = memoryview(data).cast("B")
                file.write(view[: len(view) // 2])
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    return before


def fail_at(target: int, error: int) -> Callable[..., None]:
    """Refuse a call."""

    def before(number, name, *_):
        if number == target:
            raise OSError(error, os.strerror(error))

    return before


def refuse_links(monkeypatch: pytest.MonkeyPatch, error: int = errno.EPERM) -> None:
    """Let the file system know no hard links, or refuse them for another reason."""

    def link(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", link)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
