import sys

import numpy as np
import pytest

from lit_attr import Explorer
from lit_attr.errors import ConfigurationError, EdgeNotFoundError, StorageError
from lit_attr.query import layer_questions
from tests.storage.examples import partly_harvested, random_storage


@pytest.fixture
def explorer(tmp_path):
    random_storage(provenance={"run_reference": "demo"}).save(tmp_path / "x.pt")
    return Explorer(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda e: e.sources("embed:0"), EdgeNotFoundError, "no sources of embed:0: nothing feeds the embedding"),
        (lambda e: e.targets("output:0"), EdgeNotFoundError, "no targets of output:0: the output feeds nothing"),
        (lambda e: e.sources("output:0", metric="attr_abs"), EdgeNotFoundError, "have no attr_abs"),
        (
            lambda e: e.sources("output:0", sign="up"),
            ConfigurationError,
            r"sign must be one of \['positive', .*, found 'up'",
        ),
        (lambda e: e.sources("output:0", k=0), ConfigurationError, "k must be a whole number of at least 1, found 0"),
        (lambda e: e.sources("output:0", metric="x"), ConfigurationError, "metric must be one of"),
        (lambda e: e.edges(k=0), ConfigurationError, "k must be a whole number of at least 1, found 0"),
        (lambda e: e.edges(layers=["7.*"]), ConfigurationError, r"no layer matches '7\.\*'"),
        (lambda e: e.matrix(statistic="median"), ConfigurationError, "statistic must be one of .*, found 'median'"),
        (lambda e: e.block("embed", "0.mlp.down"), EdgeNotFoundError, "layers that feed 0.mlp.down: 0.mlp.up"),
        (lambda e: e.block("embed", "x"), EdgeNotFoundError, "unknown layer 'x'"),
        (lambda e: e.subgraph([]), ConfigurationError, "found 0 keys"),
        (
            lambda e: e.subgraph(["output:0"], depth=0),
            ConfigurationError,
            "depth must be a whole number of at least 1, found 0",
        ),
        (lambda e: e.subgraph(["output:0"], k=2.5), ConfigurationError, "k must be a whole number .*, found 2.5"),
        (lambda e: e.subgraph(["output:0"], threshold=-1), ConfigurationError, "threshold .* at least 0, found -1"),
        (lambda e: e.subgraph(["output:0"], threshold=float("nan")), ConfigurationError, "threshold .*, found nan"),
        (lambda e: e.subgraph(["output:0"], direction="up"), ConfigurationError, "direction must be one of"),
        (lambda e: e.subgraph(["output:9"]), EdgeNotFoundError, "no edges of output:9: output has 5 token ids"),
    ],
)
def test_mistakes(explorer, ask, error, message):
    with pytest.raises(error, match=message):
        ask(explorer)


def test_values_that_are_not_finite_are_no_answer(tmp_path):
    storage = random_storage()
    storage.embed_attr["0.mlp.up"][1, 3] = float("inf")
    storage.save(tmp_path / "x.pt")
    explorer = Explorer(tmp_path / "x.pt")
    for ask in (lambda: explorer.sources("0.mlp.up:1"), explorer.matrix, explorer.edges):
        with pytest.raises(StorageError, match="not finite"):
            ask()


def test_blocks_that_are_too_large(explorer, tmp_path, monkeypatch):
    monkeypatch.setattr(layer_questions, "_LARGEST_BLOCK", 5)
    with pytest.raises(ConfigurationError, match=r"from embed to 0\.mlp\.up has 15 edges, and at most 5 are computed"):
        explorer.block("embed", "0.mlp.up")
    with pytest.raises(ConfigurationError, match="at most 5"):
        explorer.block("embed", "output", normalized=False)
    raw = explorer.block("embed", "0.mlp.up", normalized=False)
    assert np.array_equal(raw.values, explorer.storage.embed_attr["0.mlp.up"].numpy())
    partly_harvested({"0.mlp.up": [1]}).save(tmp_path / "y.pt")
    with pytest.raises(ConfigurationError, match="the raw block of a layer whose components were all targets"):
        Explorer(tmp_path / "y.pt").block("embed", "0.mlp.up", normalized=False)


def test_layers_of_matrix_and_edges(explorer):
    pairs = {(e.source.layer, e.target.layer) for e in explorer.edges(layers=["0.attn.q"]).edges}
    assert pairs == {("embed", "0.attn.q"), ("0.attn.q", "0.mlp.up")}
    matrix = explorer.matrix(layers=["h.0.mlp.down_proj"])
    assert (matrix.sources, matrix.targets) == (("0.mlp.up", "0.mlp.down"), ("0.mlp.down", "output"))
    assert matrix.values[0][1] is None


def test_subgraph_of_some_layers(explorer):
    graph = explorer.subgraph(["output:0", "embed:1"], k=2, depth=3, layers=["[0-9]*"])
    assert {node.layer for node in graph.nodes} - {"embed", "output"} == {"0.mlp.up", "0.mlp.down", "0.attn.q"}
    assert [n.component_key for n in graph.nodes[:2]] == ["output:0", "embed:1"]
    assert not any(e.source.layer == "embed" and e.target.layer == "output" for e in graph.edges)


def test_frames(explorer):
    pytest.importorskip("polars")
    answer = explorer.sources("output:0", k=3, sign="both")
    frame = answer.frame()
    how_sure = ["standard_error", "n_groups", "few_groups", "low", "high"]
    assert frame.columns == ["component_key", "layer", "component_idx", "token", "value", *how_sure]
    assert frame["value"].to_list() == [entry.value for entry in answer.entries]
    assert explorer.sources("0.attn.q:0", layers=["0.mlp.up"]).frame().shape == (0, 10)
    edge = explorer.edge("embed:2", "output:0")
    assert edge.frame().row(0, named=True) == {
        **{"source": "embed:2", "source_token": "Mia", "target": "output:0", "target_token": "<s>"},
        **{"raw": edge.raw, "normalized": edge.normalized, "was_harvested": True},
        **dict.fromkeys(("raw_standard_error", "normalized_standard_error", "n_groups", "few_groups")),
    }
    matrix = explorer.matrix().frame()
    assert matrix.columns == ["source_layer", "target_layer", "value", "harvested"]
    assert len(matrix) == 6
    block = explorer.block("embed", "0.mlp.up")
    rows = block.frame()
    assert len(rows) == 15
    assert rows.row(0, named=True) == {
        **{"source": "embed:0", "source_token": "<s>", "target": "0.mlp.up:0", "target_token": None},
        **{"value": float(block.values[0, 0]), "was_harvested": True, "standard_error": None, "n_groups": None},
    }
    for answer in (explorer.edges(), explorer.subgraph(["output:0"])):
        frame = answer.frame()
        assert frame.columns == ["source", "source_token", "target", "target_token", "value", *how_sure]
        assert frame["target"].to_list() == [edge.target.component_key for edge in answer.edges]


def test_without_polars(explorer, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ConfigurationError, match=r"'polars' is needed here: pip install 'lit_attr\[frames\]'"):
        explorer.matrix().frame()
