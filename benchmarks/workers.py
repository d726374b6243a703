"""Workers of small harvests: each is a process of its own, forked from a server that has imported all it needs."""

import ctypes
import errno
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pytest", "lit_attr.cli.predict"])
# Settings of a trainer that says nothing, and of a worker's.
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
TRAINER: dict[str, Any] = {**QUIET, "inference_mode": False}


@dataclass(frozen=True)
class Work:
    """What one process does.

    Attributes:
        run: Folder of the decomposition run.
        tokens: The token file.
        log: File that all output of the process is appended to.
        data: Other settings of the data: rank and world_size of independent workers, batch_size...
        writer: Settings of the writer.
        model: Settings of the harvester.
        ddp: Rank, number of processes and port of a trainer of several processes.
        seconds: Least time of a batch.
        signals: Number of a batch of the process to the signal that the process sends itself in that batch.
        action: Fault, for tests: `delete` the parts before the end, a `full disk`, `permissions` that bind
            root too, a file system with `no links`, or `other versions` of libraries; or `compute` at the end what
            the sums of all processes are.
    """

    run: Path
    tokens: Path
    log: Path
    data: dict[str, Any] = field(default_factory=dict)
    writer: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    ddp: tuple[int, int, int] | None = None
    seconds: float = 0.0
    signals: dict[int, int] = field(default_factory=dict)
    action: str | None = None


def start(work: Work) -> ForkServerProcess:
    """Start a worker; it exits with 0 when it is done, and with 2 after a mistake that it explains in its log."""
    process = _CONTEXT.Process(target=_harvest, args=(work,), daemon=True)
    process.start()
    return process


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _no_links(*_: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _obey_permissions() -> None:
    """Give up root's right to read and write what a file's permissions forbid (capabilities(7), version 3)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    failed = libc.capget(header, sets)
    for index in (0, 1):  # effective and permitted: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
        sets[index] &= ~0b110
    if failed or libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _harvest(work: Work) -> None:
    if work.action == "permissions":
        _obey_permissions()
    if work.action == "no links":
        os.link = _no_links  # type: ignore[assignment]
    log = os.open(work.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    trainer: dict[str, Any] = {}
    if work.ddp is not None:
        rank, world_size, port = work.ddp
        names = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world_size, "MASTER_PORT": port}
        names |= {"LOCAL_WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "workers"}
        os.environ.update({name: str(value) for name, value in names.items()})
        trainer = {"devices": world_size, "strategy": "ddp"}

    from lightning.pytorch import Callback, Trainer

    from lit_attr.errors import LitAttrError
    from lit_attr.harvest.datamodule import TokenDataModule
    from lit_attr.harvest.harvester import AttributionHarvester
    from lit_attr.harvest.writer import StorageWriter
    from lit_attr.parts import software

    if work.action == "other versions":
        software.version = lambda _: "2.0.0"

    class Slow(AttributionHarvester):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:  # noqa: ANN401
            result = super().predict_step(batch, batch_idx)
            time.sleep(work.seconds)
            if batch_idx in work.signals:
                os.kill(os.getpid(), signal.Signals(work.signals[batch_idx]))
            return result

    class Action(Callback):
        def on_predict_epoch_end(self, trainer: Trainer, pl_module: AttributionHarvester) -> None:
            if work.action == "delete" and writer.folder is not None:
                shutil.rmtree(writer.folder / "worker_states", ignore_errors=True)

        def on_predict_start(self, trainer: Trainer, pl_module: AttributionHarvester) -> None:
            if work.action == "full disk":
                os.posix_fallocate = _no_space

    try:
        data = TokenDataModule(work.tokens, **{"batch_size": 2, **work.data})
        writer = StorageWriter(**work.writer)
        settings = {**TRAINER, **trainer, "callbacks": [Action(), writer]}
        harvester = Slow(work.run, **work.model)
        Trainer(**settings).predict(harvester, datamodule=data)
        if work.action == "compute":
            harvester.sums.compute()
            print(f"computed from {int(harvester.sums.totals.n_tokens)} tokens")
    except LitAttrError as error:
        print(f"lit-attr: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
