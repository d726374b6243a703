"""Mistakes of one process reach all; two real ones are in test_ddp.py, on two hosts in test_two_hosts.py."""

import multiprocessing
import time
from datetime import timedelta

import pytest
import torch
from torch import distributed

import benchmarks.workers  # noqa: F401 - what the server has imported from which processes are forked
from lit_attr.errors import ConfigurationError, DataError, InterruptedHarvestError, StorageError
from lit_attr.harvest import processes
from lit_attr.harvest.processes import Processes, leaving_groups

ALONE, OF_TWO = Processes(None, None), Processes(distributed.ProcessGroup(0, 2), None)


def fail():
    raise StorageError("my disk")


@pytest.fixture
def other(monkeypatch):
    """The mistake of the second of two processes, or what happens to the conversation with it."""

    def other(mistake=None, gone=None):
        def gather(mistakes, mine, group):
            if gone:
                raise gone
            mistakes[:] = [mine, mistake]

        monkeypatch.setattr(processes.distributed, "get_world_size", lambda group: 2)
        monkeypatch.setattr(processes.distributed, "all_gather_object", gather)

    return other


@pytest.fixture
def first(monkeypatch):
    """What the first of two processes says to all; None if this is the first."""

    def first(outcome=None):
        def broadcast(message, src, group):
            message[:] = outcome or message

        monkeypatch.setattr(processes.distributed, "get_rank", lambda group: int(outcome is not None))
        monkeypatch.setattr(processes.distributed, "broadcast_object_list", broadcast)

    return first


def test_a_process_that_runs_out_of_memory_blames_no_other(other):
    other(gone=torch.OutOfMemoryError("my memory"))
    with pytest.raises(torch.OutOfMemoryError, match="my memory"):
        OF_TWO.gathered(1)


def test_a_process_alone():
    assert [ALONE.greatest(number) for number in range(3)] == [0, 1, 2]
    for do in (ALONE.on_each, ALONE.on_first):
        assert do(lambda: 3) == 3
        with pytest.raises(StorageError, match="my disk"):
            do(fail)


def test_each_of_two(other):
    other()
    assert OF_TWO.on_each(lambda: 3) == 3
    with pytest.raises(StorageError, match="my disk"):
        OF_TWO.on_each(fail)


def test_the_mistake_of_another(other):
    other(DataError("its data"))
    with pytest.raises(DataError, match="its data"):
        OF_TWO.on_each(lambda: 3)
    with pytest.raises(StorageError, match="my disk"):
        OF_TWO.on_each(fail)


def test_another_that_is_gone(other):
    other(gone=RuntimeError("Connection closed by peer\nand where"))
    with pytest.raises(
        InterruptedHarvestError, match=r"another process has ended, .* Connection closed by peer; the same"
    ):
        OF_TWO.on_each(lambda: 3)


def test_the_first_alone_works(first):
    first()
    assert OF_TWO.on_first(lambda: 3) == 3
    with pytest.raises(StorageError, match="my disk"):
        OF_TWO.on_first(fail)
    first([4, None])
    assert OF_TWO.on_first(fail) == 4
    first([None, DataError("its data")])
    with pytest.raises(DataError, match="its data"):
        OF_TWO.on_first(lambda: 3)


def _give_up(rank, meeting):
    settings = {"init_method": f"file://{meeting}", "timeout": timedelta(seconds=60)}
    distributed.init_process_group("gloo", rank=rank, world_size=2, **settings)
    if rank == 1:
        time.sleep(60)
    distributed.all_reduce(torch.ones(1), async_op=True)
    with leaving_groups():
        raise ConfigurationError("mine")


@pytest.mark.slow
def test_a_process_with_a_conversation_that_nobody_answers_ends(tmp_path):
    """By itself it would wait for the other."""
    start = multiprocessing.get_context("forkserver").Process
    both = [start(target=_give_up, args=(rank, tmp_path / "meeting"), daemon=True) for rank in range(2)]
    for process in both:
        process.start()
    both[0].join(45)
    assert both[0].exitcode == ConfigurationError.exit_code
    assert both[1].is_alive()
    both[1].kill()
