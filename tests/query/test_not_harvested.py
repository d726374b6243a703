"""Edges to components that were no targets of the harvest were not measured: no answer says 0."""

import numpy as np
import pytest

from lit_attr.query.answer_json import plain
from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from tests.query.examples import all_edges
from tests.storage.examples import partly_harvested, random_storage

# A layer of which a part was harvested, and one of which nothing was.
NOT_TARGETS = {"0.mlp.up": [1], "0.attn.q": [0, 1]}


@pytest.fixture(params=[False, True], ids=["without index", "with index"])
def explorer(request, tmp_path):
    partly_harvested(NOT_TARGETS).save(tmp_path / "x.pt")
    if request.param:
        build_index(tmp_path / "x.pt")
    found = Explorer(tmp_path / "x.pt")
    assert found.is_indexed is request.param
    return found


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The same result with all targets."""
    path = tmp_path_factory.mktemp("complete") / "x.pt"
    random_storage().save(path)
    return Explorer(path)


def test_edges(explorer, complete):
    found = explorer.edge("embed:2", "0.mlp.up:1")
    assert (found.was_harvested, found.raw, found.normalized) == (False, None, None)
    assert complete.edge("embed:2", "0.mlp.up:1").raw != 0
    assert not found.target.was_harvested
    for other in ("0.mlp.up:2", "output:3"):
        one, same = (e.edge("embed:2", other) for e in (explorer, complete))
        assert one.was_harvested
        assert (one.raw, one.normalized) == (same.raw, same.normalized)
        assert one.raw != 0


def test_rankings(explorer, complete):
    sources = explorer.sources("0.mlp.up:1")
    assert (sources.was_harvested, sources.entries, sources.n_not_harvested) == (False, (), 0)
    targets = explorer.targets("embed:2", k=100, sign="both")
    assert (targets.was_harvested, targets.n_not_harvested) == (True, 3)
    assert explorer.targets("embed:2", layers=["0.mlp.up"]).n_not_harvested == 1
    assert explorer.targets("embed:2", layers=["output"]).n_not_harvested == 0
    expected = complete.targets("embed:2", k=100, sign="both").entries
    unknown = {"0.mlp.up:1", "0.attn.q:0", "0.attn.q:1"}
    expected = [(entry.component_key, entry.value) for entry in expected if entry.component_key not in unknown]
    assert [entry.component_key for entry in targets.entries] == [key for key, _ in expected]
    assert [entry.value for entry in targets.entries] == pytest.approx([value for _, value in expected], rel=1e-5)
    assert explorer.sources("output:1").was_harvested
    of_known = explorer.sources("0.mlp.up:2", sign="both", layers=["0.attn.q"])
    assert [entry.was_harvested for entry in of_known.entries] == [False, False]  # what feeds them is not known


@pytest.mark.parametrize("normalized", [False, True])
def test_matrices(explorer, normalized):
    blocks = all_edges(explorer.storage, "attr", normalized)
    rows = [0, 2]
    mass, mean = (explorer.matrix(statistic=s, normalized=normalized) for s in ("mass", "mean"))
    for pair in mass.pairs:
        block = blocks[pair.source_layer, pair.target_layer]
        if pair.target_layer == "0.attn.q":
            assert (pair.value, pair.harvested) == (None, 0)
        else:
            measured = block[rows] if pair.target_layer == "0.mlp.up" else block
            assert pair.value == pytest.approx(np.abs(measured).sum(), rel=1e-5)
            assert pair.harvested == pytest.approx(len(measured) / len(block))
    means = {(pair.source_layer, pair.target_layer): pair.value for pair in mean.pairs}
    expected = np.abs(blocks["embed", "0.mlp.up"][rows]).mean()
    assert means["embed", "0.mlp.up"] == pytest.approx(expected, rel=1e-5)
    assert means["embed", "0.attn.q"] is None
    # Blank is not the same as not harvested.
    no_edges = mass.targets.index("0.attn.q"), mass.sources.index("0.mlp.down")
    assert (mass.values[no_edges[0]][no_edges[1]], mass.harvested[no_edges[0]][no_edges[1]]) == (None, None)


def test_blocks(explorer, complete):
    for normalized in (False, True):
        found, expected = (e.block("embed", "0.mlp.up", normalized=normalized) for e in (explorer, complete))
        assert np.isnan(found.values[1]).all()
        assert np.array_equal(found.values[[0, 2]], expected.values[[0, 2]])
        assert found.n_not_harvested == 1
        assert [node.was_harvested for node in found.targets] == [True, False, True]
        assert plain(found)["values"][1] == [None] * 5
    assert explorer.block("0.mlp.down", "output").n_not_harvested == 0
    assert not np.isnan(explorer.storage.embed_attr["0.mlp.up"].numpy()).any()  # the file's own numbers


def test_strongest_edges_and_subgraphs(explorer):
    assert explorer.edges().n_not_harvested == 3
    assert explorer.edges(layers=["0.mlp.down"]).n_not_harvested == 0
    assert explorer.pair_edges("embed", "0.mlp.up").n_not_harvested == 1
    assert explorer.pair_edges("embed", "0.attn.q", k=9).edges == ()
    graph = explorer.subgraph(["0.mlp.up:1", "output:1"], k=9, depth=4)
    assert all(edge.target.was_harvested for edge in graph.edges)
    unknown = {node.component_key for node in graph.nodes if not node.was_harvested}
    assert unknown == {"0.mlp.up:1", "0.attn.q:0", "0.attn.q:1"}


def test_a_subgraph_counts_what_cannot_appear_downstream(explorer, complete):
    assert explorer.subgraph(["embed:2"], depth=1).n_not_harvested == 3
    assert explorer.subgraph(["embed:2"], depth=1, layers=["0.mlp.up"]).n_not_harvested == 1
    assert explorer.subgraph(["embed:2", "0.attn.q:0"], depth=1, layers=["0.mlp.*"]).n_not_harvested == 1
    assert explorer.subgraph(["output:1"], depth=4).n_not_harvested == 0  # only sources are followed
    assert explorer.subgraph(["embed:2"], depth=1, direction="upstream").n_not_harvested == 0
    assert complete.subgraph(["embed:2"]).n_not_harvested == 0


def test_frames(explorer):
    pytest.importorskip("polars")
    edge = explorer.edge("embed:2", "0.mlp.up:1").frame().row(0, named=True)
    assert (edge["raw"], edge["normalized"], edge["was_harvested"]) == (None, None, False)
    block = explorer.block("embed", "0.mlp.up").frame()
    unknown = block.filter(~block["was_harvested"])
    assert set(unknown["target"]) == {"0.mlp.up:1"}
    assert unknown["value"].to_list() == [None] * 5
    matrix = explorer.matrix().frame()
    row = matrix.filter(matrix["target_layer"] == "0.attn.q").row(0, named=True)
    assert (row["value"], row["harvested"]) == (None, 0)


def test_a_file_that_does_not_say_is_taken_as_it_is(complete):
    assert complete.storage.provenance is None
    assert complete.edges().n_not_harvested == 0
    assert all(pair.harvested == 1 for pair in complete.matrix().pairs)
