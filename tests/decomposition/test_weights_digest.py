import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_attr.decomposition.checkpoint import read_checkpoint, weights_digest
from lit_attr.decomposition.load import load_run
from tests.toys import write_run

State = dict[str, Tensor]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def some_state() -> State:
    generator = torch.Generator().manual_seed(0)
    return {
        "b": torch.randn(2, 3, generator=generator),
        "a.x": torch.arange(4),
        "c": torch.randn(3, dtype=torch.float64, generator=generator),
        "d": torch.randn(3, generator=generator).bfloat16(),
        "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 2),
        "zero": torch.zeros(1),
        "mask": torch.tensor([True, False]),
    }


def test_digest_is_a_fixed_function_of_names_dtypes_shapes_and_bytes():
    state = {"w": torch.tensor([[1.0, -2.0]]), "b": torch.tensor(258, dtype=torch.int16)}
    content = b"b torch.int16 ()\n" + struct.pack("<h", 258) + b"w torch.float32 (1, 2)\n" + struct.pack("<2f", 1, -2)
    assert weights_digest(state) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "same",
    [
        lambda s: dict(reversed(s.items())),
        lambda s: {name: tensor.clone() for name, tensor in s.items()},
        lambda s: s | {"b": s["b"].T.contiguous().T},
        lambda s: s | {"b": torch.cat([s["b"], s["b"]])[2:]},
        lambda s: s | {"b": torch.nn.Parameter(s["b"])},
    ],
)
def test_digest_is_independent_of_order_and_memory(same: Callable[[State], State]):
    assert weights_digest(same(some_state())) == weights_digest(some_state())


def nudged(tensor: Tensor) -> Tensor:
    return ~tensor if tensor.dtype == torch.bool else tensor + (tensor == tensor.flatten()[-1])


CHANGES: dict[str, Callable[[State], State]] = {
    **{
        f"a value of {name}": lambda s, n=name: s | {n: nudged(s[n])}
        for name in ("b", "a.x", "c", "d", "scalar", "mask")
    },
    "a name": lambda s: {("z" if n == "c" else n): t for n, t in s.items()},
    "two names": lambda s: s | {"c": s["d"], "d": s["c"]},
    "a shape": lambda s: s | {"b": s["b"].reshape(3, 2)},
    "an axis of length one": lambda s: s | {"scalar": s["scalar"][None]},
    "an empty tensor": lambda s: s | {"empty": torch.zeros(0, 3)},
    "a dtype of equal bytes": lambda s: s | {"b": s["b"].view(torch.int32)},
    "a dtype of equal values": lambda s: s | {"a.x": s["a.x"].int()},
    "a tensor less": lambda s: {n: t for n, t in s.items() if n != "empty"},
    "a sign of zero": lambda s: s | {"zero": -s["zero"]},
}


@pytest.mark.parametrize("what", CHANGES)
def test_digest_changes_with(what: str):
    assert weights_digest(CHANGES[what](some_state())) != weights_digest(some_state())


def test_digest_of_a_run_is_that_of_its_tensors_wherever_the_file_lies(run: Path, tmp_path: Path):
    other = write_run(tmp_path / "other", step=77)
    state = torch.load(other / "model_77.pth")
    torch.save(dict(reversed(state.items())), other / "model_77.pth")
    assert load_run(run).weights_digest == load_run(other).weights_digest
    assert load_run(run).weights_digest == weights_digest(read_checkpoint(run / "model_10.pth"))


def test_digest_of_a_run_changes_with_its_weights(run: Path, tmp_path: Path):
    assert load_run(run).weights_digest != load_run(write_run(tmp_path / "other", seed=1)).weights_digest
