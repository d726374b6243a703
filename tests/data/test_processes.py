"""Caches that several processes share, and that a process dies over."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from lit_attr.data.cache import TokenCache
from lit_attr.data.spec import DatasetSpec
from tests.data import make_spec, offline, texts, write_rows  # noqa: F401

pytestmark = pytest.mark.slow

# Tokenizes; notes every call of the tokenizer in a file, and takes its time at the second where it is told to.
_SCRIPT = """
import hashlib, json, logging, os, sys, time
from pathlib import Path
import datasets, torch
from lit_attr.data import cache, rows
from lit_attr.files import lock

spec, root, calls, hold, n_rows = json.loads(sys.argv[1])
load = rows.load_tokenizer

class Noting:
    def __init__(self, name):
        self.tokenizer = load(name)
        self.eos_token = self.tokenizer.eos_token
        self.n_calls = 0

    def encode(self, texts):
        with open(calls, "a") as file:
            file.write(f"{os.getpid()}\\n")
        self.n_calls += 1
        if hold and self.n_calls == 2:
            time.sleep(600)
        return self.tokenizer.encode(texts)

rows.load_tokenizer = Noting
lock._HEARTBEAT = 0.1
logging.basicConfig(level=logging.INFO)
token_cache = cache.TokenCache(cache.DatasetSpec(**spec), Path(root))
Path(f"{calls}.{os.getpid()}").touch()
while not Path(f"{calls}.go").exists():
    time.sleep(0.01)
token_cache.prepare(n_rows)
found, order = token_cache.open()
print(hashlib.sha256((found if order is None else found[order])[:n_rows].tobytes()).hexdigest())
"""


class Workers:
    """Processes that make one cache."""

    def __init__(self, spec: DatasetSpec, folder: Path) -> None:
        self.root = folder / "shared"
        self.calls = folder / "calls"
        self._spec = asdict(spec)
        self._started: list[subprocess.Popen] = []

    def start(self, hold: bool = False, n_rows: int | None = None) -> subprocess.Popen:
        job = json.dumps([self._spec, str(self.root), str(self.calls), hold, n_rows])
        with open(f"{self.calls}.err{len(self._started)}", "w") as err:
            process = subprocess.Popen(
                [sys.executable, "-c", _SCRIPT, job], stdout=subprocess.PIPE, stderr=err, text=True
            )
        self._started.append(process)
        return process

    def all_ready(self) -> bool:
        assert all(process.poll() is None for process in self._started)
        return all(Path(f"{self.calls}.{process.pid}").exists() for process in self._started)

    def go(self) -> None:
        Path(f"{self.calls}.go").touch()

    def n_calls(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0

    def said(self, process: subprocess.Popen) -> str:
        return Path(f"{self.calls}.err{self._started.index(process)}").read_text()

    def result(self, process: subprocess.Popen) -> str:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, self.said(process)
        return out.split()[-1]

    def stop(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def spec(tmp_path):
    """Three batches of texts, whose rows can be had one batch after the other."""
    return make_spec(write_rows(tmp_path / "data.jsonl", text=texts(2500)), shuffle_each_epoch=False)


@pytest.fixture
def workers(spec, tmp_path):
    workers = Workers(spec, tmp_path)
    yield workers
    workers.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def digest(cache: TokenCache, n_rows: int | None = None) -> str:
    rows, order = cache.open()
    return hashlib.sha256((rows if order is None else rows[order])[:n_rows].tobytes()).hexdigest()


@pytest.fixture
def expected(spec, tmp_path):
    cache = TokenCache(spec, tmp_path / "uninterrupted")
    cache.prepare(None)
    return cache


def test_processes_that_begin_at_once_tokenize_once(workers, expected):
    processes = [workers.start() for _ in range(4)]
    wait_for(workers.all_ready)
    workers.go()
    assert {workers.result(process) for process in processes} == {digest(expected)}
    assert workers.n_calls() == 3
    assert len(set(workers.calls.read_text().splitlines())) == 1


def test_processes_that_need_different_numbers_of_rows_tokenize_nothing_twice(workers, expected):
    numbers = [1, 2500, None, 2500]
    processes = [workers.start(n_rows=n_rows) for n_rows in numbers]
    wait_for(workers.all_ready)
    workers.go()
    assert [workers.result(process) for process in processes] == [digest(expected, n_rows) for n_rows in numbers]
    assert workers.n_calls() == 3


def test_a_killed_process_leaves_a_cache_that_goes_on(workers, spec, expected):
    workers.go()
    process = workers.start(hold=True)
    wait_for(lambda: workers.n_calls() == 2)
    process.kill()
    assert process.wait() < 0
    cache = TokenCache(spec, workers.root)
    assert 0 < os.path.getsize(cache.folder / "tokens.bin") < os.path.getsize(expected.folder / "tokens.bin")
    workers.calls.unlink()
    assert workers.result(workers.start()) == digest(expected)
    assert workers.n_calls() == 2
    assert (cache.folder / "tokens.bin").read_bytes() == (expected.folder / "tokens.bin").read_bytes()


def test_a_killed_holder_gives_the_lock_to_who_waits(workers, expected):
    workers.go()
    holder = workers.start(hold=True)
    wait_for(lambda: workers.n_calls() == 2)
    waiting = workers.start()
    wait_for(lambda: "waiting for another process to tokenize" in workers.said(waiting))
    assert workers.n_calls() == 2
    holder.kill()
    assert workers.result(waiting) == digest(expected)
    assert workers.n_calls() == 4
