"""Processes of a trainer hear from each other every second, learn why one has ended, and do not wait for ever."""

import asyncio
import json
import logging
import os
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from lit_attr.errors import InterruptedHarvestError

_log = logging.getLogger(__name__)
# Seconds between two signs of life. Silence is counted in beats of the process that listens, never by a clock: one that
# was stopped for an hour, alone or with all others, has heard nothing for one beat.
_BEAT = 1.0
# Beats without an answer after which a connection is made anew: where a link is back, old ones may need minutes.
_RECONNECT = 3
# Beats in which a process whose connection was closed may call again: more than it takes one that is alive.
_CLOSED = 6
# Beats that the main thread has to end by itself, once it must.
_GRACE = 5
# Seconds in which the others are told that this process ends.
_FAREWELL = 2.0
_LONGEST_MESSAGE = 2_000
# What a stranger's words may lead to.
_NOT_UNDERSTOOD = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class Meeting(NamedTuple):
    """Where the processes hear from each other.

    Attributes:
        host: Host of the first process, as the others know it.
        port: Port on which it listens.
        token: What they show, so that nobody else is taken for one of them.
    """

    host: str
    port: int
    token: str


@dataclass
class _Peer:
    """What this process knows of another."""

    rank: int
    host: str | None = None
    stream: asyncio.StreamWriter | None = None
    silent: int = 0  # beats since it was heard
    closed: int | None = None  # beats since it closed a connection on which it had just been heard
    left: bool = False  # it needs nobody any more

    @property
    def silence(self) -> str:
        return f"no answer from {self} for {self.silent * _BEAT:.0f} s"

    def __str__(self) -> str:
        return f"process {self.rank} on {self.host}" if self.host else f"process {self.rank}"


class ProcessWatch:
    """Watches the other processes of a trainer, in a thread.

    The first process hears all others, and each of them hears the first. Once a process has ended with an exception,
    was killed, or has been silent for too long, all learn it and end. The main thread may be waiting in a collective
    that nothing interrupts: where it has not ended by itself after some seconds, the thread ends the process. That is
    safe at any instant, since commits are atomic.

    Args:
        rank: Rank of this process.
        n_processes: Number of all processes.
        patience: Seconds of silence after which a process is given up.
        meeting: Where the processes meet.
        listener: The socket that listens there, on the first process; None on the others.
    """

    def __init__(
        self, rank: int, n_processes: int, patience: float, meeting: Meeting, listener: socket.socket | None
    ) -> None:
        self._patience = max(1, round(patience / _BEAT))
        self._warned_after = max(2, self._patience // 4)
        self._meeting = meeting
        self._listener = listener
        self._hello = {"token": meeting.token, "rank": rank, "host": socket.gethostname()}
        self._peers = {other: _Peer(other) for other in (range(1, n_processes) if listener else (0,))}
        self._reason: str | None = None
        self._reason_known = threading.Event()
        self._in_doubt = False  # whether the main thread has lost the others
        self._beats_to_end = _GRACE
        self._ended = asyncio.Event()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._run, name="process-watch", daemon=True)
        self._thread.start()

    def reason(self, seconds: float = 0.0) -> str | None:
        """Why this process must end, if it must.

        Args:
            seconds: How long to wait for a reason, where another conversation with the processes has failed.
        """
        self._in_doubt = seconds > 0
        self._reason_known.wait(seconds)
        return self._reason

    @property
    def silence(self) -> str | None:
        """Which process has not been heard for a quarter of the time after which it is given up; None if all are.

        Processes that were never heard, as behind a firewall, are not missed.
        """
        heard = (peer for peer in self._peers.values() if peer.host is not None and not peer.left)
        silent = [peer for peer in heard if peer.silent >= self._warned_after]
        return silent[0].silence if silent else None

    def fail(self, message: str) -> None:
        """Tell the others that this process ends, and stop watching.

        Args:
            message: Why it ends.
        """
        self._finish(self._say({"ended": message[:_LONGEST_MESSAGE]}))

    def close(self) -> None:
        """Stop watching: this process does not need the others any more, nor they this one."""
        self._finish(self._say({"left": True}))

    def _finish(self, farewell: Coroutine[Any, Any, None]) -> None:
        async def finish() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await farewell
            self._ended.set()

        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(finish(), self._loop)
            self._thread.join(2 * _FAREWELL)
        else:
            farewell.close()

    # All below runs in the thread.

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._watch())

    async def _watch(self) -> None:
        if self._listener is not None:
            server = await asyncio.start_server(self._answer, sock=self._listener)
            hearing = asyncio.create_task(server.serve_forever())
        else:
            hearing = asyncio.create_task(self._call(self._peers[0]))
        try:
            await self._judge_all()
        finally:
            hearing.cancel()

    async def _judge_all(self) -> None:
        """Once a beat, give a sign of life, and look whether the others have; until this process leaves."""
        while not self._ended.is_set():
            await self._say({})
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT):
                    await self._ended.wait()
                return
            if self._reason is None:
                for peer in self._peers.values():
                    await self._judge(peer)
            elif self._beats_to_end:
                self._beats_to_end -= 1
            else:
                os.write(2, f"\nlit-attr: error: {interrupted(self._reason)}\n".encode())
                os._exit(InterruptedHarvestError.exit_code)

    async def _say(self, message: dict[str, Any]) -> None:
        """Send something to all others; where it says something, wait until it is on its way."""
        for peer in self._peers.values():
            if peer.stream is not None and not peer.stream.is_closing():
                peer.stream.write(_line(message))
                if message:
                    with suppress(OSError):
                        await peer.stream.drain()

    async def _answer(self, reader: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
        """On the first process: hear one of the others."""
        with suppress(OSError, asyncio.CancelledError, *_NOT_UNDERSTOOD):
            async with asyncio.timeout(_RECONNECT * _BEAT):
                hello = json.loads(await reader.readline())
            if hello["token"] == self._meeting.token:
                peer = self._peers[hello["rank"]]
                peer.host, peer.stream = str(hello["host"]), stream
                stream.write(_line(self._hello if self._reason is None else {**self._hello, "reason": self._reason}))
                await self._hear(peer, reader)
        stream.transport.abort()

    async def _call(self, peer: _Peer) -> None:
        """On the other processes: hear the first, over one connection after another."""
        address: tuple[str, int] = self._meeting[:2]
        while not self._ended.is_set():
            try:
                async with asyncio.timeout(_RECONNECT * _BEAT):
                    reader, stream = await asyncio.open_connection(*address)
                address = stream.get_extra_info("peername")[:2]  # names need not be resolved again
                stream.write(_line(self._hello))
                peer.stream = stream
                await self._hear(peer, reader)
            except ConnectionRefusedError:
                if peer.host is not None:
                    peer.closed = peer.closed or 0
            except (OSError, *_NOT_UNDERSTOOD):
                pass
            finally:
                if peer.stream is not None:
                    peer.stream.transport.abort()
            await asyncio.sleep(_BEAT)

    async def _hear(self, peer: _Peer, reader: asyncio.StreamReader) -> None:
        """Hear a process until its connection is closed, or is not heard any more."""
        while True:
            try:
                async with asyncio.timeout(_RECONNECT * _BEAT):
                    line = await reader.readline()
            except ConnectionError:
                line = b""
            if not line:
                if peer.silent < _RECONNECT and peer.closed is None:  # after a silence it says nothing of the process
                    peer.closed = 0
                return
            message = json.loads(line)
            if peer.silent >= self._warned_after:
                _log.warning(f"{peer} is heard again")
            peer.silent, peer.closed = 0, None
            peer.host = message.get("host", peer.host)
            peer.left |= "left" in message
            if "reason" in message:
                await self._must_end(message["reason"])
            elif "ended" in message:
                await self._must_end(f"{peer} has ended: {message['ended']}")

    async def _must_end(self, reason: str) -> None:
        """Note the first reason to end, and pass it on."""
        if self._reason is None:
            self._reason = reason
            self._reason_known.set()
            await self._say({"reason": reason} if self._listener else {"ended": reason})

    async def _judge(self, peer: _Peer) -> None:
        """Count a beat without a word of a process, and decide whether it is still there."""
        if peer.left or self._reason is not None:
            return
        peer.silent += 1
        if peer.closed is not None:
            peer.closed += 1
            if peer.closed > (1 if self._in_doubt else _CLOSED):
                await self._must_end(f"{peer} has ended without a word: its connection was closed")
                return
        if peer.host is None:  # it may be a firewall: who was never heard is not missed
            if peer.silent == self._warned_after:
                place = f"{self._meeting.host}, port {self._meeting.port}"
                _log.warning(f"{peer.silence}, and it is not watched: is {place}, in reach of all processes?")
        elif peer.silent >= self._patience:
            await self._must_end(peer.silence)
        elif peer.silent % self._warned_after == 0:
            _log.warning(f"{peer.silence}; after {self._patience * _BEAT:.0f} s this process ends")


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def interrupted(reason: str) -> InterruptedHarvestError:
    """The exception of a process that must end because of another.

    Args:
        reason: What is known of the other.
    """
    return InterruptedHarvestError(f"{reason}; the same command continues from what is committed")
