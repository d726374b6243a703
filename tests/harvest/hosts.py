"""Two hosts on one machine: network namespaces joined by a cable, each with its own name, processes and clocks."""

import ctypes
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import benchmarks.workers  # noqa: F401 - what the server has imported from which processes are forked
import lit_attr
import lit_attr.parts.software

_CONTEXT = multiprocessing.get_context("forkserver")
_NEW_MOUNTS, _NEW_NAME, _NEW_PROCESSES, _NEW_NETWORK, _NEW_CLOCKS = 0x20000, 0x4000000, 0x20000000, 0x40000000, 0x80
_PRIVATE, _BIND = 0x40000 | 0x4000, 0x1000
_DIE_WITH_PARENT = 1


def reason_to_skip() -> str | None:
    """What keeps this machine from having two hosts."""
    if os.getuid() != 0:
        return "network namespaces need root"
    return None if shutil.which("ip") else "network namespaces need iproute2"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


@dataclass
class Command:
    """`lit-attr` at work on a host."""

    process: BaseProcess
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, words: str, seconds: float = 60.0) -> None:
        """Wait until it has said something."""
        end = time.monotonic() + seconds
        while words not in self.said:
            assert self.process.is_alive(), self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.05)

    def end(self, seconds: float = 60.0) -> int | None:
        """Its exit code; None if it had to be killed."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            return None
        return self.process.exitcode

    def signal(self, number: int) -> None:
        """Send a signal to the process within the host."""
        pid = self.process.pid
        os.kill(int(Path(f"/proc/{pid}/task/{pid}/children").read_text()), number)


@dataclass
class Host:
    """One of two hosts."""

    number: int
    hosts_file: Path
    seconds_ahead: int = 0
    version: str = lit_attr.__version__
    namespace: str = field(init=False)

    def __post_init__(self) -> None:
        self.namespace = f"lit_attr_{os.getpid()}_{self.number}"

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def address(self) -> str:
        return f"10.77.0.{self.number + 1}"

    def start(
        self, arguments: Sequence[str], log: Path, environment: dict[str, str], pause: float, fault: str | None
    ) -> Command:
        """Run `lit-attr` here.

        Args:
            arguments: Words behind it.
            log: File of its output.
            environment: Variables that are added.
            pause: Seconds before each batch.
            fault: `data waits` for a minute when it is prepared, or `data breaks`; `targets wait` for twelve seconds.
        """
        log.write_text("")
        process = _CONTEXT.Process(
            target=_run, args=(self, list(arguments), log, environment, pause, fault), daemon=True
        )
        process.start()
        return Command(process, log)


class Hosts:
    """Two hosts and the cable between them, for a `with` block."""

    def __init__(self, folder: Path) -> None:
        hosts_file = folder / "hosts"
        self.both = (Host(0, hosts_file), Host(1, hosts_file))
        hosts_file.write_text("127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in self.both))

    def __enter__(self) -> "Hosts":
        for host in self.both:
            _ip("netns", "add", host.namespace)
        first, second = (host.namespace for host in self.both)
        _ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
        for host in self.both:
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "cable")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
        self.plug()
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.both:
            subprocess.run(["ip", "netns", "delete", host.namespace], check=False)

    def plug(self) -> None:
        for host in self.both:
            _ip("-n", host.namespace, "link", "set", "cable", "up")
            _ip("-n", host.namespace, "neighbour", "flush", "dev", "cable", "nud", "permanent")

    def unplug(self) -> None:
        """Cut the cable in the middle, so that neither host sees it: each sends to a card that is not there."""
        for host, other in zip(self.both, self.both[::-1], strict=True):
            nobody = ("lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", "cable")
            _ip("-n", host.namespace, "neighbour", "replace", other.address, *nobody)


def _run(
    host: Host, arguments: list[str], log: Path, environment: dict[str, str], pause: float, fault: str | None
) -> None:
    namespace = os.open(f"/run/netns/{host.namespace}", os.O_RDONLY)
    _call("setns", namespace, _NEW_NETWORK)
    _call("unshare", _NEW_NAME | _NEW_MOUNTS | _NEW_PROCESSES | _NEW_CLOCKS)
    _call("sethostname", host.name.encode(), len(host.name))
    Path("/proc/self/timens_offsets").write_text(f"monotonic {host.seconds_ahead} 0\nboottime {host.seconds_ahead} 0\n")
    _call("mount", b"none", b"/", None, _PRIVATE, None)
    _call("mount", str(host.hosts_file).encode(), b"/etc/hosts", None, _BIND, None)
    if child := os.fork():  # only a child is in the new namespaces of processes and clocks
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)  # as shells say that a signal has ended it
    _call("prctl", _DIE_WITH_PARENT, signal.SIGKILL)
    _call("mount", b"proc", b"/proc", b"proc", 0, None)
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.update(environment)
    now = time.time
    time.time = lambda: now() + host.seconds_ahead  # type: ignore[assignment]

    from lit_attr.cli.main import main
    from lit_attr.harvest.datamodule import TokenDataModule
    from lit_attr.harvest.harvester import AttributionHarvester

    step = AttributionHarvester.predict_step

    def slow_step(harvester: AttributionHarvester, *batch: object) -> object:
        print(f"test: batch {batch[1]}")
        time.sleep(pause)
        return step(harvester, *batch)

    def prepare_data(data: TokenDataModule) -> None:
        if fault == "data breaks":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "token_cache")
        print("test: preparing")
        time.sleep(60)

    find_alive = AttributionHarvester.find_alive

    def slow_targets(harvester: AttributionHarvester) -> object:
        time.sleep(12)
        return find_alive(harvester)

    lit_attr.parts.software.__version__ = host.version
    AttributionHarvester.predict_step = slow_step  # type: ignore[assignment,method-assign]
    if fault == "targets wait":
        AttributionHarvester.find_alive = slow_targets  # type: ignore[assignment,method-assign]
    elif fault is not None:
        TokenDataModule.prepare_data = prepare_data  # type: ignore[method-assign]
    sys.argv = ["lit-attr", *arguments]
    sys.exit(main())
