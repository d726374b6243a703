"""Watches of three processes in one; real processes on two hosts are in test_two_hosts.py."""

import os
import socket
import time

import pytest

from lit_attr.harvest import watch
from lit_attr.harvest.watch import Meeting, ProcessWatch


@pytest.fixture
def codes():
    """With which a watch has ended its process."""
    return []


@pytest.fixture
def watches(monkeypatch, codes):
    """Watches that hear each other; they end with the test."""
    monkeypatch.setattr(watch, "_BEAT", 0.04)
    monkeypatch.setattr(os, "_exit", codes.append)
    listener = socket.create_server(("127.0.0.1", 0))
    meeting = Meeting("127.0.0.1", listener.getsockname()[1], "token")
    watches = [ProcessWatch(rank, 3, 0.4, meeting, None if rank else listener) for rank in range(3)]
    wait_for(lambda: all(peer.host for each in watches for peer in each._peers.values()))
    yield watches
    for each in watches:
        each.close()


def wait_for(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("rank", [0, 1])
def test_all_learn_why_one_ends(watches, rank):
    watches[rank].fail("my disk is full")
    reasons = {each.reason(5.0) for each in (watches[1 - rank], watches[2])}
    assert reasons == {f"process {rank} on {socket.gethostname()} has ended: my disk is full"}


def test_a_process_that_leaves_is_not_missed(watches):
    watches[1].close()
    time.sleep(0.45)
    assert [each.reason() for each in watches] == [None] * 3
    watches[0].close()
    time.sleep(0.45)
    assert watches[2].reason() is None


def test_silence(watches):
    """A thread that is held up, as by a process that is stopped, is missed by all."""
    assert watches[0].silence is None
    watches[2]._loop.call_soon_threadsafe(time.sleep, 0.8)
    wait_for(lambda: watches[0].silence)
    assert watches[0].silence.startswith("no answer from process 2")
    assert watches[0].reason(5.0) == watches[1].reason(5.0)
    assert watches[0].reason().startswith(f"no answer from process 2 on {socket.gethostname()} for ")


def test_a_main_thread_that_does_not_end(watches, codes):
    watches[1].fail("gone")
    wait_for(lambda: codes)
    assert set(codes) == {2}


def test_strangers_are_not_heard(watches, caplog):
    for word in (
        b"\xff\x00\n",
        b"[]\n",
        b'{"token": "other", "rank": 1, "ended": "x"}\n',
        b'{"rank": 1}\n',
        b"a" * 100_000,
        b"[" * 50_000 + b"\n",
    ):
        with socket.create_connection(watches[0]._meeting[:2]) as stranger:
            stranger.sendall(word)
    time.sleep(0.3)
    assert [each.reason() for each in watches] == [None] * 3
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_a_process_that_was_never_heard_is_not_missed(monkeypatch, caplog):
    """As behind a firewall: the harvest goes on, and says once that nobody watches."""
    monkeypatch.setattr(watch, "_BEAT", 0.02)
    listener = socket.create_server(("127.0.0.1", 0))
    alone = ProcessWatch(0, 2, 0.2, Meeting("127.0.0.1", listener.getsockname()[1], "token"), listener)
    time.sleep(0.6)
    assert (alone.reason(), alone.silence) == (None, None)
    alone.close()
    assert ["is not watched: is 127.0.0.1, port " in record.message for record in caplog.records] == [True]
