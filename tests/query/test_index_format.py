"""An index that is written by hand, as format 1 says, is read: indexes of earlier versions stay in use."""

import json
import zlib

import numpy as np
import pytest

from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.index_file import identity
from tests.storage.examples import random_storage

MARK = b"\nlit_attr index\n"
K = 2


def record(n_lists, **lists):
    """Positions and raw values of some lists, by number; the others are empty."""
    positions, raw = np.full((n_lists, K), -1, "<i4"), np.zeros((n_lists, K), "<f4")
    for number, entries in lists.items():
        positions[int(number[1:])], raw[int(number[1:])] = zip(*entries, strict=True)
    data = positions.tobytes() + raw.tobytes()
    return data + zlib.crc32(data).to_bytes(4, "little")


def section(name, offset, n_records, n_lists, n_positions):
    return {
        "name": name,
        "offset": offset,
        "n_records": n_records,
        "n_lists": n_lists,
        "k": K,
        "n_positions": n_positions,
    }


@pytest.fixture
def explorer(tmp_path, caplog):
    """Of a result whose index says things that are not in the result, so that it is known what answers."""
    path = tmp_path / "x.pt"
    storage = random_storage()
    storage.save(path)
    n_tokens, n_neighbours = len(storage.embed_token_count), sum(len(storage.ci_sum[t]) for t in storage.embed_attr)
    # Lists: attr raw positive, raw negative, normalised positive, normalised negative; then attr_abs.
    records = [record(8, _5=[(1, -9), (n_neighbours - 1, -4)], _0=[(0, 7), (2, 6)]) for _ in range(n_tokens)]
    keys, pairs = b"".join(records), record(4, _1=[(2 * n_tokens + 3, -8), (4, -7)])
    table = {
        "storage": identity(path),
        "pairs": [["embed", "0.mlp.up", "attr", 12.5, 3.25]],
        "version": 1,
        "sections": [
            section("targets/embed/components", 0, n_tokens, 8, n_neighbours),
            section("pairs", len(keys), 1, 4, 10**6),
        ],
    }
    end = json.dumps(table).encode()
    numbers = len(end).to_bytes(8, "little") + zlib.crc32(end).to_bytes(4, "little")
    (tmp_path / "x.index").write_bytes(keys + pairs + end + numbers + MARK)
    yield Explorer(path)
    assert not caplog.records


def test_lists_of_keys(explorer):
    storage = explorer.storage
    expected = [f"{layer}:{index}" for layer in storage.embed_attr for index in range(len(storage.ci_sum[layer]))]
    layers = list(storage.ci_sum)
    negative = explorer.targets("embed:2", k=2, sign="negative", metric="attr_abs", normalized=False, layers=layers)
    assert [(e.component_key, e.value) for e in negative.entries] == [(expected[1], -9), (expected[-1], -4)]
    positive = explorer.targets("embed:4", k=2, sign="positive", normalized=False, layers=layers)
    assert [(e.component_key, e.value) for e in positive.entries] == [(expected[0], 7), (expected[2], 6)]


def test_pairs(explorer):
    edges = explorer.edges(k=2, sign="negative", normalized=False, layers=["embed"]).edges
    known = [edge for edge in edges if edge.target.layer == "0.mlp.up"]
    ends = [(edge.source.component_key, edge.target.component_key, edge.value) for edge in known]
    assert ends == [("embed:3", "0.mlp.up:2", -8), ("embed:4", "0.mlp.up:0", -7)]
    for normalized, mass in ((False, 12.5), (True, 3.25)):
        matrix = explorer.matrix(normalized=normalized)
        row, column = matrix.targets.index("0.mlp.up"), matrix.sources.index("embed")
        assert matrix.values[row][column] == mass


def test_what_is_written_is_laid_out_so(tmp_path):
    path = tmp_path / "x.pt"
    storage = random_storage()
    storage.save(path)
    data = build_index(path).read_bytes()
    assert data.startswith(MARK)
    assert data.endswith(MARK)
    length = int.from_bytes(data[-len(MARK) - 12 : -len(MARK) - 4], "little")
    end = data[-len(MARK) - 12 - length : -len(MARK) - 12]
    assert zlib.crc32(end) == int.from_bytes(data[-len(MARK) - 4 : -len(MARK)], "little")
    table = json.loads(end)
    assert table["version"] == 1
    first = table["sections"][0]
    assert (first["name"], first["offset"], first["n_lists"]) == ("targets/embed/components", len(MARK), 8)
    shape = (first["n_lists"], first["k"])
    dtype = np.dtype([("position", "<i4", shape), ("raw", "<f4", shape), ("crc", "<u4")])
    records = np.frombuffer(data, dtype, first["n_records"], first["offset"])
    for token, one in enumerate(records):
        assert zlib.crc32(one.tobytes()[:-4]) == one["crc"]
        row = np.concatenate([block[:, token].float().numpy() for block in storage.embed_attr.values()])
        for number, sign in ((0, 1), (1, -1)):
            wanted = sorted((i for i in range(len(row)) if sign * row[i] > 0), key=lambda i: -abs(row[i]))
            positions = one["position"][number]
            assert positions[positions >= 0].tolist() == wanted
            assert one["raw"][number][: len(wanted)].tolist() == row[wanted].tolist()
