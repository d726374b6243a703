"""Whether the Triton kernel for MLPs may be used: on a CUDA device where it was compared with float64."""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.workspace import Workspace

_log = logging.getLogger(__name__)

# `mlp_kernel.signed_sums`, which is imported only where it is used: it needs Triton.
SignedSums = Callable[..., Float[Tensor, "source target"]]
# The largest error of a sum that is accepted, as a share of the sum of the sizes of its terms. Float32 is off by 1e-7
# here, products in TF32 without a split by 1e-4.
_LARGEST_ERROR = 1e-6


@cache
def checked_kernel(device: torch.device) -> SignedSums | None:
    """The kernel, if the device can run it and its result is right there; looked at once in a process.

    Args:
        device: Device of the tensors.

    Returns:
        `mlp_kernel.signed_sums`; None where the plain way is to be taken.
    """
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    try:
        kernel: SignedSums = import_module("lit_attr.attribution.closed_form.mlp_kernel").signed_sums
        error = largest_error(kernel, device)
    except Exception as problem:  # whatever compilers, drivers and linkers raise
        _log.warning(f"MLPs go the plain way on {device}: the Triton kernel does not run: {problem!r:.300}")
        return None
    if not error <= _LARGEST_ERROR:
        _log.warning(f"MLPs go the plain way on {device}: the Triton kernel is off by {error:.1e} of the terms")
        return None
    return kernel


def largest_error(kernel: SignedSums, device: torch.device) -> float:
    """How far a kernel's sums are from those in float64, as a share of the sums of their terms' sizes.

    The problems are random and small, with sources of none, few and many pairs, and sizes that are no multiples of
    blocks. There are two, since the kernel is compiled twice: for widths of the hidden layer that are multiples of 16,
    and for others.

    Args:
        kernel: A function with the arguments of `mlp_kernel.signed_sums`.
        device: Device of the tensors.
    """
    errors = []
    for n_hidden in (208, 200):
        position, source, *values = random_problem([150, 0, 1, 64, *[3] * 20, 130], 150, n_hidden, 140, device)
        sums = kernel(position, source, *values, Workspace(1 << 24, device))
        doubles = [tensor.double() for tensor in values]
        exact = sums_of_pairs(position, source, *doubles)
        sizes = sums_of_pairs(position, source, *(tensor.abs() for tensor in doubles))
        errors.append(((sums - exact).abs() / sizes.clamp_min(torch.finfo(torch.float64).tiny)).max())
    return float(torch.stack(errors).max())


def random_problem(
    counts: Sequence[int], n_positions: int, n_hidden: int, n_targets: int, device: torch.device
) -> tuple[Tensor, ...]:
    """Random positions, sources, weights, slopes, write and read vectors and signs, as `sums_of_pairs` takes them.

    Args:
        counts: Number of pairs of each source, at most one at a position.
        n_positions: Number of positions.
        n_hidden: Width of the hidden layer.
        n_targets: Number of targets.
        device: Device of the tensors.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    source = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device)
    some = [torch.randperm(n_positions, generator=generator)[:count].sort().values for count in counts]
    weight, slope, write = normal(len(source)), normal(n_positions, n_hidden), normal(len(counts), n_hidden)
    read, sign = normal(n_hidden, n_targets), normal(n_positions, n_targets).sign()
    return torch.cat(some).to(device), source, weight, slope, write, read, sign


def sums_of_pairs(
    position: Int[Tensor, " pair"],
    source: Int[Tensor, " pair"],
    weight: Float[Tensor, " pair"],
    slope: Float[Tensor, "position hidden"],
    write: Float[Tensor, "source hidden"],
    read: Float[Tensor, "hidden target"],
    sign: Float[Tensor, "position target"],
) -> Float[Tensor, "source target"]:
    """What the kernel computes, pair by pair.

    Args:
        position: Position of each pair.
        source: Source of each pair.
        weight: Weight of each pair.
        slope: Derivative of the hidden layer.
        write: Write vectors.
        read: Read vectors.
        sign: Signs of the targets' activations.
    """
    effects = (slope[position] * write[source]) @ read * sign[position] * weight[:, None]
    return write.new_zeros(len(write), read.shape[1]).index_add_(0, source, effects)
