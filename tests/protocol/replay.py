"""The code of workers and of merging, run step by step on files that are in memory.

A process is a function. What it does next follows from what the files have answered so far: it is run from its
beginning with these answers, up to the first step that none of them answers, and is given up there. So every state of a
process is a list of answers, and going on from a state twice, in two ways, is easy.
"""

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from hashlib import md5
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.files import identity, json_file, lock, publish, seal
from lit_attr.harvest import commits, writer
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.parts import freeze, history, ledger, part, read_vectors, software
from lit_attr.parts.header import Header
from lit_attr.parts.plan import Plan
from lit_attr.storage import write
from tests.parts.harvests import PLAN
from tests.protocol.counted import shard_of
from tests.protocol.files import ROOT, Behaviour, Outcome, PartContent, Step
from tests.storage.examples import ALIVE, TOPOLOGY

Program = Callable[[], None]


class _GivenUp(BaseException):
    """The process is not run beyond this step."""


class Finished(SimpleNamespace):
    """The end of a process.

    Attributes:
        error: Why it ended early; None if it did not.
    """

    error: Exception | None


class Numbers(AttributionSums):
    """Sums, and their accumulator, of which is known only which batches' numbers are in them."""

    layout = None

    def __init__(self, batches: Sequence[int] = ()) -> None:
        vars(self)["batches"] = list(batches)  # not a module: nothing of torch is set up

    @property
    def totals(self) -> "Numbers":
        return self

    @property
    def n_tokens(self) -> int:
        return len(self.batches)

    @property
    def n_abs_tokens(self) -> int:
        return len(self.batches)

    @property
    def token_count(self) -> torch.Tensor:
        return torch.bincount(torch.tensor(self.batches, dtype=torch.int64), minlength=PLAN.n_batches)

    def flush(self) -> None:
        pass

    def add(self, other: "Numbers") -> None:
        self.batches.extend(other.batches)


class _OneThread:
    """An executor: which of several reads comes first makes no difference."""

    def map(self, function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        return [function(*one) for one in zip(*arguments, strict=True)]


class Replay:
    """The process that is run now: what it was answered, and the first step that was not."""

    def __init__(self, name: str, answered: Sequence[Outcome]) -> None:
        self.name = name
        self.next: Step | Finished | None = None
        self._answered = answered
        self.n_steps = 0

    def take(self, step: Step) -> Any:
        if self.next is not None:  # clearing up: a killed process does not
            raise _GivenUp
        if self.n_steps == len(self._answered):
            self.next = step
            raise _GivenUp
        outcome = self._answered[self.n_steps]
        self.n_steps += 1
        if outcome.error is not None:
            raise outcome.error(f"{step.name}: {outcome.error.__name__}")
        return outcome.value

    def unique(self) -> str:
        return f"{self.name} {self.n_steps}"


_running: Replay | None = None


def next_step(name: str, program: Program, answered: Sequence[Outcome]) -> Step | Finished:
    """What a process does after some answers; inside `on_model_files`."""
    global _running
    _running = Replay(name, answered)
    try:
        program()
        _running.next = Finished(error=None)
    except _GivenUp:
        pass
    except Exception as error:
        if _running.next is None:
            _running.next = Finished(error=error)
    assert _running.next is not None
    return _running.next


def take(kind: str, path: Path | str = ROOT, argument: Any = None) -> Any:
    """One step of the process that is run."""
    return _running.take(Step(kind, str(path)[len(str(ROOT)) + 1 :], argument))


def note(what: str, value: Any) -> Any:
    """Tell the checker something at this point of a process, or ask it."""
    return take("note", ROOT, (what, value))


def _is_model(path: object) -> bool:
    return str(path).startswith(str(ROOT))


def _read(path: Path) -> Any:
    try:
        return take("read", path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def _publish_json(path: Path, content: Any, *, replace: bool) -> None:
    take("replace" if replace else "create", path, json.dumps(content))


def _write_part(path: Path, sums: Numbers, ledger: Any) -> None:
    take("replace", path, PartContent.of(_running.unique(), ledger, sums.batches))


def _read_part(path: Path, layout: Any) -> tuple[Numbers, Any]:
    content = _read(path)
    return Numbers(content.numbers), content.read_ledger()


def _keep(path: Path, name: Path, behaviour: Behaviour) -> None:
    if behaviour.links:
        take("link", path, str(name.relative_to(ROOT)))
        return
    content = take("read", path)
    take("replace", name, content._replace(identity=_running.unique()))


@contextmanager
def _locked(path: Path, *_: Any) -> Iterator[None]:
    take("lock", path)
    try:
        yield
    finally:
        take("unlock", path)


def _write_result(
    path: Path,
    parts: Mapping[str, Numbers],
    _: Any,
    __: Any,
    ___: float,
    provenance: Any,
    check: Callable[[], object],
    **options: Any,
) -> None:
    check()
    by_shard = {shard_of(name): list[int]() for name in parts}
    for name, numbers in parts.items():
        by_shard[shard_of(name)] += numbers.batches
    coverage = json.dumps(provenance["coverage"])
    note("result", (path.name, tuple(tuple(sorted(batches)) for batches in by_shard.values()), coverage))


@contextmanager
def on_model_files(behaviour: Behaviour, n_shards: int = 1) -> Iterator[pytest.MonkeyPatch]:
    """Let the package's code work on files in memory wherever a path is in `ROOT`.

    The functions of the file layer are replaced, each by the one step that makes it atomic (tests/files holds that they
    are), and those that read and write sums by ones that note batches. All that decides is the package's own.
    """
    with pytest.MonkeyPatch.context() as patch:
        replacements: dict[Any, Any] = {
            json_file.publish_json: _publish_json,
            json_file.read_object: lambda path, kind: json_file.parse_object(_read(path), kind, path),
            publish.keep: lambda path, name: _keep(path, name, behaviour),
            publish.make_folder: lambda _: None,
            publish.sync_folder: lambda _: None,
            seal.check_seal: _read,
            lock.locked: _locked,
            part.write_part: _write_part,
            part.read_part: _read_part,
            read_vectors.load_read_vectors: lambda *_: None,
            ledger.read_ledger: lambda path: _read(path).read_ledger(),
            write.write_result: _write_result,
            software.software: lambda: {"lit_attr": "0"},
            history.recorded_provenance: lambda *_: {},
        }
        for module in [module for name, module in sys.modules.items() if name.startswith("lit_attr.")]:
            for name, value in list(vars(module).items()):
                if callable(value) and getattr(value, "__hash__", None) and value in replacements:
                    patch.setattr(module, name, replacements[value])
        patch.setattr(Header, "load", lambda _: Header(TOPOLOGY, ALIVE, None, 0.0, {}))
        plan = PLAN if n_shards == 1 else Plan({**PLAN.entries, "target_shards": n_shards}, PLAN.n_batches)
        patch.setattr(Plan, "load", lambda _: plan)
        patch.setattr(identity.FileIdentity, "of", lambda path: take("identity", path))
        patch.setattr(freeze, "ThreadPoolExecutor", lambda _: nullcontext(_OneThread()))
        patch.setattr(writer, "rank_zero_info", lambda _: None)
        patch.setattr(freeze._log, "warning", lambda _: None)
        patch.setattr(commits, "time", SimpleNamespace(time=lambda: 0.0, monotonic=lambda: 0.0))
        patch.setattr(uuid, "uuid4", lambda: SimpleNamespace(hex=md5(_running.unique().encode()).hexdigest()))
        _replace_calls(patch, "listdir", os, lambda path: list(take("list", path)))
        _replace_calls(patch, "exists", Path, lambda path: take("exists", path))
        _replace_calls(patch, "glob", Path, lambda path, pattern: [path / n for n in take("list", path, pattern)])
        _replace_calls(patch, "unlink", Path, _unlink)
        yield patch


def _unlink(path: Path, missing_ok: bool = False) -> None:
    try:
        take("unlink", path)
    except FileNotFoundError:
        if not missing_ok:
            raise


def _replace_calls(patch: pytest.MonkeyPatch, name: str, owner: Any, function: Callable[..., Any]) -> None:
    """Replace a function of the system where its path is the model's."""
    real = getattr(owner, name)

    def call(path: Any, *args: Any, **options: Any) -> Any:
        return (function if _is_model(path) else real)(path, *args, **options)

    patch.setattr(owner, name, call)
