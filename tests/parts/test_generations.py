import errno
import fcntl
import json
import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from lit_attr.data.batch_ids import union
from lit_attr.errors import StorageError
from lit_attr.files import lock
from lit_attr.files.seal import check_seal
from lit_attr.parts import freeze
from lit_attr.parts.freeze import current_generation
from lit_attr.parts.generations import newest_generation
from lit_attr.parts.ledger import read_ledger
from lit_attr.parts.plan import Plan
from lit_attr.topology.words import GENERATION_LOCK
from tests.parts.faults import Calls, in_child, kill_at, names_in, refuse_links
from tests.parts.harvests import MAX_BATCHES, PLAN, assert_holds, begin, commit, committed, complete_harvest, frozen_ids


def parts_in(folder):
    return {name for name in names_in(folder / "worker_states") if name.endswith(".pt")}


@pytest.fixture(params=["links", "copies"])
def frozen_as(request, monkeypatch):
    """Whether the file system knows hard links."""
    if request.param == "copies":
        refuse_links(monkeypatch)
    return request.param


def test_first_generation(tmp_path):
    assert newest_generation(tmp_path / "nowhere", PLAN) is None
    assert newest_generation(tmp_path, PLAN) is None
    generation = begin(tmp_path, 3)
    assert (generation.number, generation.world_size, generation.n_batches) == (1, 3, 10)
    assert [generation.assigned(rank).tolist() for rank in range(3)] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert generation.part_path(2) == tmp_path / "worker_states" / "dataset_attributions_rank_2.pt"
    assert newest_generation(tmp_path, PLAN) == generation


def test_as_many_workers_go_on(tmp_path):
    generation = begin(tmp_path, 3)
    commit(generation, 1, [1, 4])
    assert begin(tmp_path, 3) == generation
    assert parts_in(tmp_path) == {"dataset_attributions_rank_1.pt"}


@pytest.mark.parametrize(("world_size", "n_batches"), [(2, 10), (3, 12), (5, 11)])
def test_a_new_generation_freezes_what_is_there(tmp_path, world_size, n_batches, frozen_as):
    first = begin(tmp_path, 3)
    commit(first, 1, [1, 4])
    commit(first, 2, [2])
    inode = first.part_path(1).stat().st_ino
    second = begin(tmp_path, world_size, n_batches)
    assert (second.number, second.world_size, second.n_batches) == (2, world_size, n_batches)
    assert frozen_ids(second).tolist() == [1, 2, 4]
    remaining = sorted({*range(n_batches)} - {1, 2, 4})
    assert [second.assigned(rank).tolist() for rank in range(world_size)] == [
        remaining[rank::world_size] for rank in range(world_size)
    ]
    assert second.part_path(0).name == "dataset_attributions_rank_0_generation_2.pt"
    assert names_in(tmp_path / "worker_states") == {name for name, _ in second.frozen}, "the old names are gone"
    inodes = {(tmp_path / "worker_states" / name).stat().st_ino for name, _ in second.frozen}
    assert (inode in inodes) == (frozen_as == "links")
    assert newest_generation(tmp_path, PLAN) == second
    for rank in range(world_size):
        commit(second, rank)
    assert_holds(tmp_path, range(n_batches))
    third = begin(tmp_path, 1, n_batches)
    assert third.assigned(0).tolist() == []
    assert [*third.frozen[:2]] == [*second.frozen]
    assert_holds(tmp_path, range(n_batches))


def test_tenth_generation_is_newer_than_the_ninth(tmp_path):
    for restart in range(10):
        generation = begin(tmp_path, 1 + restart % 2)
        commit(generation, 0, generation.assigned(0)[:1])
    assert generation.number == 10
    assert newest_generation(tmp_path, PLAN).number == 10
    assert len(frozen_ids(generation)) == 9
    assert_holds(tmp_path, range(10))


def test_a_harvest_does_not_shrink(tmp_path):
    begin(tmp_path, 3)
    with pytest.raises(StorageError, match="has 10 batches, this command 9: a harvest can grow, but not shrink"):
        begin(tmp_path, 2, 9)
    assert newest_generation(tmp_path, PLAN).number == 1


def test_old_workers_publish_into_nothing(tmp_path):
    old = begin(tmp_path, 2)
    commit(old, 0, [0, 2])
    new = begin(tmp_path, 3)
    commit(old, 0, [0, 2, 4, 6])
    commit(old, 1, [1])
    for rank in range(3):
        commit(new, rank)
    assert_holds(tmp_path, range(10))
    again = begin(tmp_path, 1)
    assert len(frozen_ids(again)) == 10
    assert_holds(tmp_path, range(10))


def test_frozen_parts_do_not_change_while_an_old_worker_publishes(tmp_path, monkeypatch, frozen_as):
    """What is written down as frozen is what was checked, though the worker goes on meanwhile."""
    old, real = begin(tmp_path, 1), check_seal
    commit(old, 0, [0, 1])

    def and_publish(path):
        commit(old, 0, [0, 1, 2, 3])
        return real(path)

    monkeypatch.setattr(freeze, "check_seal", and_publish)
    new = begin(tmp_path, 2)
    assert frozen_ids(new).tolist() == [0, 1]
    for rank in range(2):
        commit(new, rank)
    assert_holds(tmp_path, range(10))


@pytest.mark.parametrize("damage", ["flip", "truncate", "foreign plan", "other rank", "other generation"])
def test_damaged_or_foreign_parts_are_not_frozen(tmp_path, damage):
    generation = begin(tmp_path, 2)
    commit(generation, 0)
    path = commit(generation, 1)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-1])
    elif damage == "other rank":
        path.write_bytes(generation.part_path(0).read_bytes())
    else:
        commit(generation, 1, **({"plan": "other"} if "plan" in damage else {"generation": 2}))
    with pytest.raises(StorageError, match=r"rank_1\.pt .*done again: 5 \(1-9 step 2\)") as refused:
        begin(tmp_path, 3)
    assert "frozen" not in str(refused.value)
    assert parts_in(tmp_path) == {generation.part_path(rank).name for rank in range(2)}, "no links are left behind"
    assert newest_generation(tmp_path, PLAN).number == 1
    path.unlink()  # as the message says
    assert frozen_ids(begin(tmp_path, 3)).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("frozen_as", ["links", pytest.param("copies", marks=pytest.mark.slow)], indirect=True)
def test_beginning_a_generation_is_safe_at_every_call(tmp_path, frozen_as):
    """Frozen parts are on the disk before a generation counts on them; whoever is killed when, nothing is lost."""

    def prepared(name):
        old = begin(tmp_path / name, 2)
        commit(old, 0, [0, 2])
        commit(old, 1, [1])
        return tmp_path / name

    folder = prepared("all")
    with Calls() as calls:
        begin(folder, 3)
    steps = [name for i, name in enumerate(calls.names) if name != "write" or calls.names[i - 1] != "write"]
    copy = ["posix_fallocate", "write", "truncate", "fsync file", "replace", "fsync folder"]
    frozen = ["link"] if frozen_as == "links" else ["link", "create", *copy]
    lock = "create"
    assert steps[: 2 * len(frozen) + 3] == [lock, *frozen, *frozen, "fsync folder", "create"]
    for number in range(len(calls.names)):
        folder = prepared(str(number))

        def begin_and_die(folder=folder, number=number):
            with Calls(kill_at(number)):
                begin(folder, 3)

        assert in_child(begin_and_die) == -signal.SIGKILL
        generation = begin(folder, 3)
        assert (generation.number, frozen_ids(generation).tolist()) == (2, [0, 1, 2])
        for rank in range(3):
            commit(generation, rank)
        assert_holds(folder, range(10))


def test_a_copy_is_refused_when_it_is_not_what_was_sealed(tmp_path, monkeypatch):
    refuse_links(monkeypatch)
    path = commit(begin(tmp_path, 2), 0)
    monkeypatch.setattr(shutil, "copyfileobj", lambda source, file, _: file.write(source.read()[:-1]))
    with pytest.raises(StorageError, match=rf"{path.name} does not end in a seal"):
        begin(tmp_path, 3)
    assert parts_in(tmp_path) == {path.name}


@pytest.mark.parametrize(("error", "message"), [(errno.ENOSPC, "No space left"), (errno.EIO, "Input/output error")])
def test_neither_link_nor_copy(tmp_path, monkeypatch, error, message):
    path = commit(begin(tmp_path, 2), 0)
    refuse_links(monkeypatch, error)
    with pytest.raises(StorageError, match=rf"cannot link .*worker_states.*: .*{message}"):
        begin(tmp_path, 3)
    assert parts_in(tmp_path) == {path.name}


NAME = "frozen_generation_1_rank_0_abc.pt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[" * 100_000, "recursion limit exceeded"),
        (None, "should be an object"),
        ({"world_size": None}, "world_size: Input should be a valid integer, found None"),
        ({"world_size": 0}, "world_size: .*greater than or equal to 1, found 0"),
        ({"world_size": 10**7}, "world_size: .*less than or equal to 100000, found 10000000"),
        ({"n_batches": 10**9}, "n_batches: .*less than or equal to 100000000"),
        ({"n_batches": 2.0}, "n_batches: .*found 2.0"),
        ({"frozen": None}, "frozen: .*found None"),
        ({"frozen": 3}, "frozen: .*found 3"),
        ({"frozen": [["../../x.pt", []]]}, r"frozen.0.0: String should match .*found '../../x.pt'"),
        ({"frozen": [[NAME, [[0, 4, 0]]]]}, r"frozen.0.1: .*expected \[first, last, step\] .*, found \[0, 4, 0\]"),
        ({"frozen": [[NAME, [[-1, 4, 1]]]]}, r"found \[-1, 4, 1\]"),
        ({"frozen": [[NAME, [[4, 0, -1]]]]}, r"found \[4, 0, -1\]"),
        ({"frozen": [[NAME, [[0, 10**12, 1]]]]}, r"found \[0, 1000000000000, 1\]"),
        ({"frozen": [[NAME, [[0, 4, 2], [4, 6, 1]]]]}, r"of batches 5 to .*, found \[4, 6, 1\]"),
        ({"frozen": [[NAME, [[0, 10, 1]]]]}, r"of batches 0 to 9, found \[0, 10, 1\]"),
        ({"frozen": [[NAME, [[0, 9, 1]]]] * 2}, "its frozen parts hold more than 10 batches"),
    ],
)
def test_damaged_generation(tmp_path, content, message):
    begin(tmp_path, 2)
    if not isinstance(content, bytes):
        whole = {"world_size": 2, "n_batches": 10, "frozen": []}
        content = json.dumps(content and {**whole, **content}).encode()
    (tmp_path / "generation_2.json").write_bytes(content)
    with pytest.raises(StorageError, match=rf"generation_2\.json is damaged: .*{message}"):
        newest_generation(tmp_path, PLAN)


def test_parts_with_batches_of_others(tmp_path):
    generation = begin(tmp_path, 2)
    ledger = read_ledger(commit(generation, 0, [0, 1, 2, 3]))
    with pytest.raises(StorageError, match=r"holds batches of other workers: 2 \(1-3 step 2\)"):
        generation.check_ledger(Path("x"), 0, ledger)


def _begin_at_once(folder, world_size, barrier, found):
    barrier.wait()
    for _ in range(3):
        generation = current_generation(folder, Plan.load(folder), world_size, 10)
    found.put((world_size, generation.number, sorted(name for name, _ in generation.frozen)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("same", [True, False])
def test_several_workers_begin_a_generation_at_once(tmp_path, same, frozen_as, monkeypatch):
    """Of those with one world size there is one; of several, each freezes all that is in those before it.

    One of them reads what is frozen, once.
    """
    digests = tmp_path / "digests"

    def counted(path):
        with digests.open("a") as file:
            file.write(f"{path}\n")
        return check_seal(path)

    monkeypatch.setattr(freeze, "check_seal", counted)
    first = begin(tmp_path, 2)
    commit(first, 0, [0, 2])
    commit(first, 1, [1])
    sizes = [3] * 4 if same else [3, 4, 5, 3]
    context = multiprocessing.get_context("fork")
    barrier, found = context.Barrier(len(sizes)), context.Queue()
    workers = [context.Process(target=_begin_at_once, args=(tmp_path, n, barrier, found)) for n in sizes]
    for worker in workers:
        worker.start()
    results = [found.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    newest = newest_generation(tmp_path, PLAN)
    assert frozen_ids(newest).tolist() == [0, 1, 2]
    assert parts_in(tmp_path) == {name for name, _ in newest.frozen}, "losers take their links away"
    assert len(digests.read_text().splitlines()) == 2
    if same:
        assert results == [(3, 2, sorted(name for name, _ in newest.frozen))] * 4
    for rank in range(newest.world_size):
        commit(newest, rank)
    assert_holds(tmp_path, range(10))


def test_a_lock_of_a_dead_worker_delays_a_restart_and_does_not_stop_it(tmp_path, monkeypatch, caplog):
    """On a file system without locks the file that stands for one stays."""

    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    commit(begin(tmp_path, 2), 0)
    (tmp_path / f"{GENERATION_LOCK}.holder").write_text('{"pid": 7, "user": "ann", "host": "a", "has_locks": false}')
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert frozen_ids(begin(tmp_path, 3)).tolist() == [0, 2, 4, 6, 8]
    assert "held by process 7 of ann on a" in caplog.text
    assert caplog.text.rstrip().endswith("Going on without the lock, which only saves work")
    assert_holds(tmp_path, [0, 2, 4, 6, 8], allow_partial=True)


def test_a_generation_that_was_written_though_the_system_says_it_was_there(tmp_path, monkeypatch):
    """Network file systems answer a repeated request so: its own links must stay."""
    commit(begin(tmp_path, 2), 0)
    real = freeze.publish_json

    def publish_twice(*args, **options):
        real(*args, **options)
        real(*args, **options)

    monkeypatch.setattr(freeze, "publish_json", publish_twice)
    assert frozen_ids(begin(tmp_path, 3)).tolist() == [0, 2, 4, 6, 8]
    assert_holds(tmp_path, [0, 2, 4, 6, 8], allow_partial=True)


@pytest.mark.parametrize("seed", range(8))
def test_random_restarts_lose_and_double_nothing(tmp_path, seed, monkeypatch):
    """Workers commit prefixes of what they are to do and are killed; others, older ones too, go on."""
    if seed % 2:
        refuse_links(monkeypatch)
    chance = random.Random(seed)
    n_batches, alive = chance.randint(1, 12), []
    world_size = chance.randint(1, 4)
    begin(tmp_path, world_size, n_batches)
    for _ in range(12):
        if chance.random() < 0.5:
            world_size = chance.randint(1, 4)
        if chance.random() < 0.15:
            n_batches = min(n_batches + chance.randint(1, 4), MAX_BATCHES)
        generation = begin(tmp_path, world_size, n_batches)
        assigned = [generation.assigned(rank) for rank in range(world_size)]
        dealt = np.concatenate([*assigned, frozen_ids(generation)])
        assert sorted(dealt.tolist()) == [*range(n_batches)], "a partition"
        alive = [(old, rank) for old, rank in alive if chance.random() < 0.5]
        for rank in range(world_size):
            if chance.random() < 0.7:
                done = {*committed(generation, rank)}
                more = [batch for batch in assigned[rank].tolist() if batch not in done]
                more = more[: chance.randint(0, len(more))]
                if more:
                    commit(generation, rank, [*done, *more])
                alive.append((generation, rank))
        for old, rank in alive:  # not killed, though a restart took over
            if old.number < generation.number:
                commit(old, rank)
        now = union(
            [frozen_ids(generation), *(np.array(committed(generation, r), np.int64) for r in range(world_size))]
        )
        assert_holds(tmp_path, now.tolist(), allow_partial=True)
    generation = begin(tmp_path, world_size, n_batches)
    for rank in range(world_size):
        if len(generation.assigned(rank)):
            commit(generation, rank)
    assert_holds(tmp_path, range(n_batches))


def test_complete_harvest_of_more_workers_than_batches(tmp_path):
    complete_harvest(tmp_path, world_size=4, n_batches=2)
    assert_holds(tmp_path, range(2))
