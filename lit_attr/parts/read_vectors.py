"""The read vectors of a harvest, beside its header: what its sums are multiplied with when the result is written."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lit_attr.errors import StorageError, reason
from lit_attr.files.limits import check_content, check_records
from lit_attr.files.publish import reading
from lit_attr.files.seal import check_open_seal, publish_sealed
from lit_attr.topology.address import OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.words import READ_VECTORS_FILE


def publish_read_vectors(folder: Path, vectors: Mapping[str, Float[Tensor, "_width _component"]]) -> None:
    """Write the read vectors of a harvest, unless another worker has: they are the model's, the same for all.

    Args:
        folder: The harvest's folder.
        vectors: Target layer to its read vectors, on the CPU.

    Raises:
        StorageError: If they cannot be written.
    """
    path = folder / READ_VECTORS_FILE
    if path.exists():
        return
    content = {layer: tensor.contiguous() for layer, tensor in vectors.items()}
    try:
        write = partial(torch.save, content)
        publish_sealed(path, write, sum(tensor.nbytes for tensor in content.values()), replace=False)
    except FileExistsError:
        pass


def load_read_vectors(
    folder: Path, topology: Topology, alive: Mapping[str, Bool[Tensor, " _component"]]
) -> ReadVectors:
    """Open the read vectors of a harvest, memory-mapped, after the whole file was compared with its seal.

    Args:
        folder: The harvest's folder.
        topology: Its attribution graph.
        alive: Layer to the components that are targets.

    Raises:
        StorageError: If they are missing, damaged, or of another model.
    """
    path = folder / READ_VECTORS_FILE
    with reading(path) as file:
        check_open_seal(file, path)
        nbytes = path.stat().st_size
        try:
            check_records(file, nbytes)
            vectors = torch.load(path, weights_only=True, mmap=True)
            check_content(vectors, nbytes)
            shapes = {layer: tuple(tensor.shape) for layer, tensor in vectors.items()}
            is_float = all(tensor.is_floating_point() for tensor in vectors.values())
        except Exception as error:  # torch raises many kinds for a damaged file
            raise StorageError(f"{path} is damaged, or holds no read vectors: {reason(error)}") from error
    expected = {
        target: (topology.widths[name], topology.n_components[target])
        for target, name in topology.inputs.items()
        if target != OUTPUT
    }
    if shapes != expected or not is_float:
        raise StorageError(f"{path}: its read vectors are not those of this harvest's model")
    return ReadVectors(topology.inputs, vectors, alive)
