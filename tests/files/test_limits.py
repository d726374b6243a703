import io
import zipfile

import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.files.limits import MAX_DEPTH, check_content, check_plain, check_records


def nested(depth, times=1):
    value = []
    for _ in range(depth):
        value = [value] * times
    return value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(1).expand(10**9)}, "more entries and numbers than fit into its 1,000 bytes"),
        ({"a": [0] * 5000}, "more entries and numbers than fit"),
        (nested(60, times=2), "more entries and numbers than fit"),  # 2^60 entries, in a few bytes
        (nested(MAX_DEPTH), f"nested more than {MAX_DEPTH} levels deep"),
        ({"a": (torch.eye(2).to_sparse(),)}, "plain tensors on the CPU, found one of torch.sparse_coo"),
        ({"a": {"b": torch.zeros(2, device="meta")}}, "plain tensors on the CPU, found one of torch.strided on meta"),
    ],
)
def test_content_that_is_more_than_its_file(content, message):
    with pytest.raises(StorageError, match=message):
        check_content(content, 1000)


def test_content_that_fits():
    tied = torch.zeros(100)
    check_content({"embedding": tied, "unembedding": tied, "notes": nested(MAX_DEPTH - 3), "n": 1}, 600)


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {"b": {1, 2}}}, [torch.zeros(2)], {"a": [b"x"]}])
def test_values_that_are_not_plain(value):
    with pytest.raises(StorageError, match="its notes: expected texts, numbers, lists and mappings, found"):
        check_plain(value, "its notes")
    check_plain({"a": [1, 2.5, None, {"b": (True, "c")}]}, "its notes")


def test_records_are_stored_as_they_are():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(10**6))
    with pytest.raises(StorageError, match=r"'data\.pkl' is compressed or damaged \(of 1,000,000 bytes\)"):
        check_records(file, len(file.getvalue()))
    with pytest.raises(StorageError, match="no archive of tensors"):
        check_records(io.BytesIO(b"x" * 100), 100)
