"""A decomposition run's checkpoint: its tensors under today's names, and a digest of them."""

import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lit_attr.decomposition.ci.layerwise import dashed
from lit_attr.errors import RunFormatError, few, reason
from lit_attr.files.archive import bytes_of
from lit_attr.files.limits import check_content, check_records

_OLD_COMPONENT = re.compile(r"(?:target_model\.)?(?P<path>.+)\.components\.(?P<part>[UV])")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU: weights only, deprecated names rewritten.

    Raises:
        RunFormatError: If the file is damaged or is not a mapping of names to tensors.
    """
    try:
        nbytes = path.stat().st_size
        if zipfile.is_zipfile(path):  # torch before 1.6 wrote no archives
            check_records(path, nbytes)
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_content(state, nbytes)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise RunFormatError(f"cannot read the checkpoint {path}: {reason(error)}") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise RunFormatError(f"{path}: expected a state dict (names to tensors), found {type(state).__name__}")
    current = {_current_name(name): tensor for name, tensor in state.items()}
    if len(current) < len(state):
        counts = Counter(_current_name(name) for name in state)
        twice = sorted(name for name, count in counts.items() if count > 1)
        raise RunFormatError(f"{path}: tensors under both an old and a new name: {few(twice)}")
    return current


def _current_name(name: str) -> str:
    name = name.replace("_gates.", "_ci_fns.")
    if name.startswith("patched_model."):
        name = "target_model." + name.removeprefix("patched_model.")
    if name.endswith(".original.weight"):
        name = name.removesuffix(".original.weight") + ".weight"
    if match := _OLD_COMPONENT.fullmatch(name):
        name = f"_components.{match['path'].replace('.', '-')}.{match['part']}"
    return "ci_fn." + name if name.startswith("_ci_fns.") else name


def tied(state: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """The state dict in which components that were trained as the transposes of others are these.

    Args:
        state: The state dict.
        pairs: Paths of decomposed matrices, each with the path of the one that has its components, transposed.

    Raises:
        RunFormatError: If one of them has no components.
    """
    known = dict(state)
    for source, target in pairs:
        of_source, of_target = ([f"_components.{dashed(path)}.{part}" for part in "VU"] for path in (source, target))
        if lacking := [name for name in (*of_source, *of_target) if name not in known]:
            raise RunFormatError(f"tied_weights: {source!r} and {target!r} are tied, but there is no {lacking[0]}")
        read, write = (known[name].T.contiguous() for name in of_source)
        known.update(zip(of_target, (write, read), strict=True))
    return known


def check_fits(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Check that the names and shapes of a state dict are exactly the module's.

    Args:
        module: The module; its tensors need no numbers.
        state: The state dict.
        where: Name of its file, for messages.

    Raises:
        RunFormatError: If they are not; the message names what is missing, left over, or of another shape.
    """
    expected = module.state_dict()
    problems = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "of another shape": [
            f"{name} (expected {tuple(tensor.shape)}, found {tuple(state[name].shape)})"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    misfits = "; ".join(f"{len(names)} {kind}: {few(names)}" for kind, names in problems.items() if names)
    if misfits:
        raise RunFormatError(f"{where} does not fit the run's configuration: {misfits}")


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all tensors, in hexadecimal; independent of the file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()
