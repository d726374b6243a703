"""Damage of archives of `torch.save`: of their values and tensors, their pickles, and the zip files around."""

import hashlib
import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import torch

from benchmarks.fuzzing.mutations import DEEP, DEPTH, broken_bytes, damaged_tree, odd_value
from lit_attr.files.seal import trailer

_SEAL = len(trailer("0" * 64))
_PICKLE = "data.pkl"
# Stands for what only a pickle can say.
_FOREIGN = "@@pickle@@"
_BOMB = 300_000_000


def _call(name: str, arguments: bytes) -> bytes:
    """The opcodes that call a function by its name with a tuple of arguments."""
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n(".encode() + arguments + b"tR"


def _integer(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


# More than Python's own limit of 1,000; the greatest takes torch half a second.
_DEPTHS = (1500, 1500, 1500, 1500, 1500, 1500, 1500, 1500, 1500, DEPTH)


def _nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1)


# A pair of a pair of a pair, each the same one twice: 2^60 entries when they are counted one by one.
_DOUBLED = b"]" + b"q\xf0h\xf0\x86" * 60
_SNIPPETS = (
    _call("os.system", b"X\x04\x00\x00\x00true"),
    _call("builtins.eval", b"X\x01\x00\x00\x001"),
    _call("builtins.bytearray", _integer(10**13)),
    _call("torch.FloatTensor", _integer(10**13)),
    _call("torch.Size", _DOUBLED),
    _call("collections.OrderedDict", _DOUBLED),
    _call("builtins.set", b"]"),
    _call("lit_attr.errors.StorageError", b""),
    _DOUBLED,
    _nested(_DEPTHS[0]),
    b"}" + b"K\x00}" * 2000 + b"s" * 2000,
    b"X\xff\xff\xff\x7f",
    b"h\xff",
    b"Nr\xff\xff\xff\x7f",
    b"N.",
    b"(",
    b"t",
    b"\x8b\xff\xff\xff\x7f",
)


def odd_tensor(random: Random) -> torch.Tensor:
    """A tensor that no file of ours should have: of another shape, type, layout, or of more numbers than it stores."""
    shape = random.choice(((), (0,), (3,), (3, 4), (4, 3), (1, 1, 1), (11, 8)))
    kind = random.randrange(10)
    if kind == 0:
        return torch.zeros(()).expand(random.choice((10**9, 10**14)))
    if kind == 1:
        return torch.zeros(1, dtype=random.choice((torch.int64, torch.float32))).expand(10**7, 10**7)
    if kind == 2:
        return torch.full(shape, random.choice((float("nan"), float("inf"), -1.0)))
    if kind == 3:
        return torch.ones(shape, dtype=random.choice((torch.int8, torch.bool, torch.float16, torch.complex64)))
    if kind == 4:
        return torch.ones(
            shape, dtype=random.choice((torch.float8_e4m3fn, torch.uint16, torch.float64, torch.bfloat16))
        )
    if kind == 5:
        return torch.nn.Parameter(torch.ones(shape))
    if kind == 6:
        return torch.ones(3, 4).to_sparse()
    if kind == 7:
        return torch.ones(10**6, 10**6, device="meta")
    if kind == 8:
        return torch.ones(8, 11).T[::2]
    return torch.full(shape, -(2**62), dtype=torch.int64)


def _odd(random: Random) -> Any:  # noqa: ANN401
    kind = random.randrange(5)
    return odd_tensor(random) if kind < 2 else _FOREIGN if kind == 2 else odd_value(random)


def _as_opcodes(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _rewritten(archive: bytes, change: Callable[[str, bytes], bytes | None], compression: int = 0) -> bytes:
    """An archive whose records are changed; None leaves one out."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(written, "w", compression) as new:
        for name in old.namelist():
            with old.open(name) as record:
                record._expected_crc = None  # earlier versions wrote wrong ones
                data = change(name, record.read())
            if data is not None:
                new.writestr(name, data)
    return written.getvalue()


def _with_pickle(archive: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return _rewritten(archive, lambda name, data: change(data) if name.endswith(_PICKLE) else data)


def saved(content: Any) -> bytes:  # noqa: ANN401
    """What `torch.save` writes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, file)
    return file.getvalue()


def sealed(archive: bytes) -> bytes:
    """An archive with a true digest behind it."""
    return archive + trailer(hashlib.sha256(archive).hexdigest())


def damaged_archive(random: Random, good: bytes, *, is_sealed: bool = True) -> bytes:
    """An archive that is broken somewhere; most of them have a true digest all the same.

    Args:
        random: Decides.
        good: The file.
        is_sealed: Whether it has a seal.
    """
    kind = random.randrange(12)
    if kind < 2:
        return broken_bytes(random, good)
    archive = good[:-_SEAL] if is_sealed else good
    if kind < 8:
        archive = _of_content(random, archive)
    elif kind == 8:
        archive = _with_pickle(archive, lambda data: broken_bytes(random, data))
    elif kind == 9:
        archive = _with_pickle(archive, lambda _: b"\x80\x02" + random.choice(_SNIPPETS) + b".")
    elif kind == 10:
        archive = _damaged_zip(random, archive)
    else:
        archive = broken_bytes(random, archive)
    return sealed(archive) if is_sealed and random.randrange(8) else archive


def _of_content(random: Random, archive: bytes) -> bytes:
    try:
        content = torch.load(io.BytesIO(archive), weights_only=True)
        archive = saved(damaged_tree(random, content, _odd))
    except (NotImplementedError, RuntimeError, OverflowError):  # cannot be written
        return broken_bytes(random, archive)

    def exchange(data: bytes) -> bytes:
        data = data.replace(_as_opcodes(DEEP), _nested(random.choice(_DEPTHS)))
        return data.replace(_as_opcodes(_FOREIGN), random.choice(_SNIPPETS))

    return _with_pickle(archive, exchange)


def _damaged_zip(random: Random, archive: bytes) -> bytes:
    """Records that are compressed, lost, long, or short."""
    kind = random.randrange(5)
    if kind == 0:
        return _rewritten(archive, lambda _, data: data, zipfile.ZIP_DEFLATED)
    if kind == 1:
        return _rewritten(archive, lambda _, data: None if random.randrange(4) == 0 else data)
    if kind == 2:
        return _rewritten(archive, lambda _, data: data[: len(data) // 2] if random.randrange(4) == 0 else data)
    if kind == 3:
        return _bomb(archive, random.choice((_PICKLE, "data/0", "byteorder")))
    end = archive.rfind(b"PK\x01\x02")  # the list of records at the end: lengths and places
    return archive[:end] + broken_bytes(random, archive[end:])


@cache  # takes seconds
def _bomb(archive: bytes, record: str) -> bytes:
    """A short archive with a long record of zeros."""
    zeros = bytes(_BOMB)
    return _rewritten(archive, lambda name, data: zeros if name.endswith(record) else data, zipfile.ZIP_DEFLATED)
