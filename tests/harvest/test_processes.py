"""Mistakes of one process reach all; two real ones are in test_ddp.py, on two hosts in test_two_hosts.py."""

import pytest
from torch import distributed

from lit_attr.errors import DataError, InterruptedHarvestError, StorageError
from lit_attr.harvest import processes
from lit_attr.harvest.processes import Processes

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
