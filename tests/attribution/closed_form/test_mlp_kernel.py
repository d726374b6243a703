"""The kernel in Triton's interpreter (see `tests/conftest.py`), compiled for GPUs that are not here, and on one."""

import os
import re
import subprocess
import sys

import pytest
import torch

from lit_attr.attribution.closed_form import mlp
from lit_attr.attribution.closed_form.kernel_choice import checked_kernel, largest_error, random_problem
from lit_attr.attribution.closed_form.workspace import Workspace
from tests.attribution.closed_form.examples import assert_close, closed_form_sums, random_ci, unit_size
from tests.toys import random_tokens, toy_model

pytest.importorskip("triton")
from lit_attr.attribution.closed_form.mlp_kernel import signed_sums

CPU = torch.device("cpu")
# Compiles for a compute capability without a device of it, and prints what the compiler made. Its arguments are the
# capability, and what is no multiple of 16.
_COMPILE = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lit_attr.attribution.closed_form.mlp_kernel import BLOCKS, LAUNCH, add_blocks_
kinds = {"position": "*i64", "source": "*i64", "n_pairs": "i32", "n_hidden": "i32", "n_targets": "i32"}
signature = {name: "constexpr" if name in BLOCKS else kinds.get(name, "*fp32") for name in add_blocks_.arg_names}
aligned = [name for name in signature if name not in (*BLOCKS, "n_pairs", "n_targets", *sys.argv[2:])]
attributes = {(list(signature).index(name),): [["tt.divisibility", 16]] for name in aligned}
source = ASTSource(add_blocks_, signature, constexprs=BLOCKS, attrs=attributes)
compiled = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=LAUNCH)
print(compiled.metadata.shared, compiled.asm["ptx"])
"""


@pytest.mark.parametrize(
    ("counts", "n_positions", "n_hidden", "n_targets", "workspace"),
    [
        ([3, 0, 200, 64, 1, 1, 0, 130], 250, 40, 150, 1 << 20),  # sources over several blocks, none a multiple
        ([1] * 70, 80, 33, 5, 1 << 20),  # more sources in a block than there are in others
        ([64, 64], 64, 32, 128, 1 << 20),  # whole blocks
        ([300, 10, 300], 300, 32, 130, 1200 * 4),  # a block at a time
        ([0, 0], 4, 5, 6, 1 << 20),
        ([1], 1, 1, 1, 1 << 20),
    ],
)
def test_sums_of_each_source(counts, n_positions, n_hidden, n_targets, workspace):
    operands = random_problem(counts, n_positions, n_hidden, n_targets, CPU)
    sums = signed_sums(*operands, Workspace(workspace, CPU))
    expected = torch.zeros(len(counts), n_targets, dtype=torch.float64)
    position, source, *floats = operands
    weight, slope, write, read, sign = (values.double() for values in floats)
    for pair, (p, s) in enumerate(zip(position, source, strict=True)):
        expected[s] += weight[pair] * sign[p] * ((slope[p] * write[s]) @ read)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.double(), expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def plain(rounded):
    """The sums pair by pair, from factors that are rounded before they are multiplied."""

    def sums(position, source, weight, slope, write, read, sign, _workspace):
        effect = rounded(slope[position] * write[source]) @ rounded(read) * sign[position] * weight[:, None]
        return torch.zeros(len(write), read.shape[1]).index_add_(0, source, effect)

    return sums


def tf32(values):
    return ((values.contiguous().view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)


def test_a_kernel_is_right_that_is_as_good_as_float32():
    assert largest_error(plain(lambda values: values), CPU) < 2e-7
    assert largest_error(signed_sums, CPU) < 2e-7
    assert largest_error(plain(tf32), CPU) > 1e-5
    assert (
        not largest_error(lambda *operands: signed_sums(*operands).index_fill_(0, torch.tensor(1), torch.nan), CPU) < 1
    )


def test_without_a_device_the_plain_way_is_taken(caplog):
    assert checked_kernel(CPU) is None
    assert not caplog.records
    if not torch.cuda.is_available():
        assert [checked_kernel(torch.device("cuda", 7)) for _ in range(2)] == [None, None]
        (record,) = caplog.records
        assert "MLPs go the plain way on cuda:7: the Triton kernel does not run: " in record.message


def test_the_engine_takes_it_for_float32_where_it_is_right(monkeypatch):
    calls = []

    def kernel(*operands):
        calls.append(operands)
        return signed_sums(*operands)

    tokens = random_tokens(2, 8)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 0.0)):
        model = unit_size(toy_model("LlamaSimple", dtype))
        ci = random_ci(model, tokens, 0.5)
        plainly = closed_form_sums(model, tokens, ci)
        with monkeypatch.context() as patch:
            patch.setattr(mlp, "checked_kernel", lambda _: kernel)
            assert_close(closed_form_sums(model, tokens, ci), plainly, tolerance)
    assert len(calls) == 2 * 2  # blocks, and matrices that feed the hidden layer of each; none in float64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "instruction"),
    [(["80"], "mma.sync"), (["90"], "wgmma.mma_async"), (["90", "n_hidden"], "wgmma.mma_async")],
)
def test_compiles_for_gpus(tmp_path, variant, instruction):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", _COMPILE, *variant]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shared, ptx = done.stdout.split(" ", 1)
    assert int(shared) < 110 << 10  # two programs on an H100's multiprocessor
    assert instruction in ptx
    assert "tf32" in ptx
    assert not re.search(r"\b(atom|red)\.", ptx)  # additions to memory in no fixed order


@pytest.mark.gpu
def test_on_a_gpu_the_kernel_is_chosen_and_gives_the_same_bits_twice():
    device = torch.device("cuda", torch.cuda.current_device())
    kernel = checked_kernel(device)
    assert kernel is signed_sums
    operands = random_problem([2000, 0, 1, 5, *[70] * 100], 3000, 513, 700, device)
    first, second = (kernel(*operands, Workspace(1 << 26, device)) for _ in range(2))
    assert torch.equal(first, second)
