"""How many rows of a batch fit into memory, found by watching one and two of them."""

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_attr.errors import ConfigurationError
from lit_attr.lean_imports import compiler_later

_GB = 1e9
# Of free memory, what is used without being told: allocators fragment, and kernels have workspaces of their own.
_DEFAULT_SHARE = 0.7
# Of glibc's malloc.h: parameters of mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let the allocator of this process keep what it frees, where that can be asked for (glibc).

    By default it hands blocks of megabytes back to the system, and every batch begins with faults for fresh pages: up
    to half of the time of the closed forms on a CPU.
    """
    with suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        allocator.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors that are created, and how many of them live at once, on any device.

    Attributes:
        live: Bytes of tensors created inside and still alive.
        peak: The most that `live` has been.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        before = {self._storage(t)._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(self._storage(tensor), before)
        return result

    @staticmethod
    def _storage(tensor: Tensor) -> torch.UntypedStorage:
        return tensor.untyped_storage()

    def _count(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        identity = storage._cdata
        if identity in before or identity in self._known:  # a view, an in-place result, or counted already
            return
        size = storage.nbytes()
        self._known.add(identity)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, identity, size)

    def _forget(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self.live -= size


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, in bytes; on the CPU within the limits of the job (control groups)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # macOS does not say what is free
    available = next(line for line in meminfo.read_text("ascii").splitlines() if line.startswith("MemAvailable:"))
    return min([int(available.split()[1]) * 1024, *_free_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _free_in_groups(membership: Path, mount: Path) -> Iterator[int]:
    """What the control groups of this process leave it, version 2 and version 1; nothing where they set no limit."""
    for line in membership.read_text().splitlines() if membership.exists() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, limit, usage = mount, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = mount / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if (folder / limit).is_file() and (text := (folder / limit).read_text().strip()) != "max":
                yield max(int(text) - int((folder / usage).read_text()), 0)
            if folder == root:
                break


def memory_limit(memory_gb: float | None, device: torch.device, n_sharing: int) -> float:
    """Bytes that a process may use for its batches.

    Args:
        memory_gb: As the user set it, in 10^9 bytes; None for a share of what is free now.
        device: Where the batches are.
        n_sharing: Processes that share the device's memory.
    """
    if memory_gb is not None:
        return memory_gb * _GB
    return _DEFAULT_SHARE * free_bytes(device) / n_sharing


def rows_that_fit(
    step: Callable[[Int[Tensor, "rows seq"]], None], tokens: Int[Tensor, "batch seq"], limit: float
) -> int:
    """How many rows of a batch can be processed at once.

    Args:
        step: Processes rows as the harvest does; it is run on the first row, and on the first two.
        tokens: The batch.
        limit: Bytes that may be in use at once, on top of what is there already.

    Raises:
        ConfigurationError: If not even one row fits.
    """
    peaks = []
    for n_rows in range(1, min(2, len(tokens)) + 1):
        with compiler_later(), PeakMemory() as memory:
            step(tokens[:n_rows])
        peaks.append(memory.peak)
    if peaks[0] > limit:
        raise ConfigurationError(
            f"one sequence of {tokens.shape[1]} tokens needs {peaks[0] / _GB:.3g} GB, but only {limit / _GB:.3g} GB "
            "may be used: raise --model.memory_gb, or lower --model.targets_per_pass"
        )
    per_row = max(peaks[-1] - peaks[0], 1)
    return min(len(tokens), 1 + int((limit - peaks[0]) / per_row)) if len(peaks) > 1 else 1
