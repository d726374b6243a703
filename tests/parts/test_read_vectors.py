import re

import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.files.seal import publish_sealed
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.read_vectors import load_read_vectors, publish_read_vectors
from lit_attr.topology.words import READ_VECTORS_FILE
from tests.parts.harvests import complete_harvest
from tests.storage.examples import ALIVE, READ, TOPOLOGY


def load(folder):
    return load_read_vectors(folder, TOPOLOGY, ALIVE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_come_back_and_the_first_ones_count(tmp_path, dtype):
    vectors = {layer: torch.randn(n, n).to(dtype).T.requires_grad_() for layer, n in TOPOLOGY.n_components.items()}
    publish_read_vectors(tmp_path, vectors)
    publish_read_vectors(tmp_path, READ.vectors)
    found = load(tmp_path)
    assert (found.inputs, found.alive) == (TOPOLOGY.inputs, ALIVE)
    assert found.vectors.keys() == vectors.keys()
    assert all(tensor.equal(vectors[layer]) for layer, tensor in found.vectors.items())


def test_those_of_components_that_are_no_targets_are_zero():
    alive = {**ALIVE, "0.mlp.up": torch.tensor([True, False, True])}
    read = type(READ)(READ.inputs, READ.vectors, alive)
    assert read.of_targets("0.mlp.up").tolist() == [[1, 0], [0, 0], [0, 1]]
    assert read.of_targets("0.mlp.up").dtype == torch.float64


def damaged(change):
    """Read vectors whose seal is in order."""

    def write(path):
        content = change(dict(READ.vectors))
        path.unlink()
        publish_sealed(path, lambda file: torch.save(content, file), 0)

    return write


OTHERS = "its read vectors are not those of this harvest's model"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "does not end in a seal: it is truncated"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"\x80?", b"\x80@", 1)), "is damaged"),
        (damaged(lambda vectors: [1]), "is damaged, or holds no read vectors"),
        (damaged(lambda vectors: {**vectors, "0.attn.q": "x"}), "is damaged, or holds no read vectors"),
        (damaged(lambda vectors: {**vectors, "0.attn.q": torch.eye(2).bool()}), OTHERS),
        (damaged(lambda vectors: {**vectors, "0.attn.q": torch.ones(3, 2)}), OTHERS),
        (damaged(lambda vectors: {"0.attn.q": vectors["0.attn.q"]}), OTHERS),
        (damaged(lambda vectors: {**vectors, "0.mlp.up": torch.eye(3).to_sparse()}), "expected plain tensors"),
    ],
)
def test_damaged_files(tmp_path, write, message):
    complete_harvest(tmp_path)
    write(tmp_path / READ_VECTORS_FILE)
    for read in (load, merge_harvest):
        with pytest.raises(StorageError, match=f"{re.escape(READ_VECTORS_FILE)}.*{message}"):
            read(tmp_path)
