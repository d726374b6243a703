"""Mistakes of one process reach all; two real ones are in test_ddp.py."""

import lightning.pytorch as pl
import pytest
from torch import distributed

from lit_attr.errors import DataError, InterruptedHarvestError, StorageError
from lit_attr.harvest import processes
from lit_attr.harvest.processes import greatest, on_each_process, on_first_process

GROUP = distributed.ProcessGroup(0, 2)


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


class Trainer(pl.Trainer):
    is_global_zero = strategy = None

    def __init__(self, is_global_zero, received=None):
        self.is_global_zero, self.received, self.strategy = is_global_zero, received, self

    def broadcast(self, outcome):
        return outcome if self.is_global_zero else self.received


def test_a_process_alone():
    assert [greatest(number, None) for number in range(3)] == [0, 1, 2]
    assert on_each_process(None, lambda: 3) == 3
    with pytest.raises(StorageError, match="my disk"):
        on_each_process(None, fail)


def test_each_of_two(other):
    other()
    assert on_each_process(GROUP, lambda: 3) == 3
    with pytest.raises(StorageError, match="my disk"):
        on_each_process(GROUP, fail)


def test_the_mistake_of_another(other):
    other(DataError("its data"))
    with pytest.raises(DataError, match="its data"):
        on_each_process(GROUP, lambda: 3)
    with pytest.raises(StorageError, match="my disk"):
        on_each_process(GROUP, fail)


def test_another_that_is_gone(other):
    other(gone=RuntimeError("Connection closed by peer\nand where"))
    with pytest.raises(InterruptedHarvestError, match=r"another process has ended, .* Connection closed by peer$"):
        on_each_process(GROUP, lambda: 3)


def test_the_first_alone_works():
    assert on_first_process(Trainer(True), lambda: 3) == 3
    assert on_first_process(Trainer(False, (4, None)), fail) == 4
    with pytest.raises(StorageError, match="my disk"):
        on_first_process(Trainer(True), fail)
    with pytest.raises(DataError, match="its data"):
        on_first_process(Trainer(False, (None, DataError("its data"))), lambda: 3)
