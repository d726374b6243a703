"""Files of a harvest in memory: the steps that change or show them, each of which the file layer makes atomic."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from lit_attr.errors import StorageError
from lit_attr.files.json_file import parse_object
from lit_attr.parts.ledger import Ledger

# A folder that is on no disk: calls with paths in it go to the model.
ROOT = Path("/no disk has this harvest")


class Step(NamedTuple):
    """One access to the files.

    Attributes:
        kind: What is done.
        name: The file, relative to the harvest's folder.
        argument: What else the kind needs.
    """

    kind: str
    name: str = ""
    argument: Any = None


class Outcome(NamedTuple):
    """What a step answers: a value, or an error."""

    value: Any = None
    error: type[Exception] | None = None


class PartContent(NamedTuple):
    """What a part holds.

    Attributes:
        identity: Tells the file from all others: who wrote it, at which step.
        ledger: Its ledger as JSON.
        numbers: The batches whose numbers are in its sums, sorted; one that is there twice counts twice.
    """

    identity: str
    ledger: str
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, identity: str, ledger: Ledger, numbers: list[int]) -> "PartContent":
        return cls(identity, json.dumps(asdict(ledger)), tuple(sorted(numbers)))

    def read_ledger(self) -> Ledger:
        return parse_object(self.ledger, Ledger, ROOT)


@dataclass(frozen=True)
class Behaviour:
    """What a file system can do.

    Attributes:
        links: Whether it knows hard links; without them parts are copied, in two steps.
        locks: Whether it knows locks.
        claims: Whether a lock outlives its holder, as a file does that stands for it. Others may give up waiting,
            whether its holder was killed or is only silent.
        repeats: How often it says of a file that was just created that it was there before, as network file systems do
            that lost an answer and ask again.
        fails: How often it fails to write a file, as a full disk does, or fails when it has written it.
        stale: How often it lists the harvest's folder as it was before the newest generation.
    """

    links: bool = True
    locks: bool = True
    claims: bool = False
    repeats: int = 0
    stale: int = 0
    fails: int = 0


# What is kept beside the files.
_LOCK = "lock of "
_REPEATS = "/repeats"
_STALE = "/stale"
_FAILS = "/fails"
_KILLED = "killed"
FileMap = Mapping[str, Any]


def answers(files: FileMap, step: Step, process: str, behaviour: Behaviour) -> Iterator[tuple[Outcome, FileMap]]:
    """What the system may answer to a step, each with the files after it; nothing while the step has to wait."""
    kind, name, argument = step
    here = name in files
    if kind == "list":
        prefix = f"{name}/" if name else ""
        names = (other.removeprefix(prefix) for other in files if other.startswith(prefix) and _LOCK not in other)
        listed = sorted(n for n in names if "/" not in n and fnmatch(n, argument or "*"))
        yield Outcome(tuple(listed)), files
        if not name and listed and files.get(_STALE, 0) < behaviour.stale:
            yield Outcome(tuple(listed[:-1])), {**files, _STALE: files.get(_STALE, 0) + 1}
    elif kind == "exists":
        yield Outcome(here), files
    elif kind == "identity":
        yield Outcome(_identity(files[name]) if here else None), files
    elif kind == "read":
        yield (Outcome(files[name]) if here else Outcome(error=FileNotFoundError)), files
    elif kind == "link":
        if not here:
            yield Outcome(error=FileNotFoundError), files
        elif argument in files:
            yield Outcome(error=FileExistsError), files
        else:
            yield Outcome(), {**files, argument: files[name]}
    elif kind == "replace":
        yield Outcome(), {**files, name: argument}
        yield from _failures(files, step, behaviour)
    elif kind == "create":
        if here:
            yield Outcome(error=FileExistsError), files
        else:
            yield Outcome(), {**files, name: argument}
            yield from _failures(files, step, behaviour)
            if files.get(_REPEATS, 0) < behaviour.repeats:
                repeated = {**files, name: argument, _REPEATS: files.get(_REPEATS, 0) + 1}
                yield Outcome(error=FileExistsError), repeated
    elif kind == "unlink":
        left = {other: content for other, content in files.items() if other != name}
        yield (Outcome() if here else Outcome(error=FileNotFoundError)), left
    elif kind == "lock":
        if not behaviour.locks:
            yield Outcome(), files
        elif f"{_LOCK}{name}" not in files:
            yield Outcome(), {**files, f"{_LOCK}{name}": process}
        elif behaviour.claims:
            yield Outcome(error=StorageError), files
    elif kind == "unlock":
        yield Outcome(), {other: content for other, content in files.items() if other != f"{_LOCK}{name}"}
    elif kind == "compute":
        yield Outcome(), files
    else:
        raise AssertionError(f"no such step: {step}")


def _failures(files: FileMap, step: Step, behaviour: Behaviour) -> Iterator[tuple[Outcome, FileMap]]:
    if (n_failed := files.get(_FAILS, 0)) < behaviour.fails:
        for written in ({}, {step.name: step.argument}):
            yield Outcome(error=StorageError), {**files, **written, _FAILS: n_failed + 1}


def _identity(content: Any) -> str:
    return content.identity if isinstance(content, PartContent) else content


def holds_lock(files: FileMap, process: str) -> bool:
    return any(name.startswith(_LOCK) and holder == process for name, holder in files.items())


def after_kill(files: FileMap, processes: Collection[str], behaviour: Behaviour) -> FileMap:
    """The files after some processes were killed: the system's locks end with their holders."""
    held = {name for name, holder in files.items() if name.startswith(_LOCK) and holder in processes}
    if behaviour.claims:
        return {name: _KILLED if name in held else content for name, content in files.items()}
    return {name: content for name, content in files.items() if name not in held}
