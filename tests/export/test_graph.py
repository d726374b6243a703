import json

import networkx
import pytest

from lit_attr.errors import StorageError
from lit_attr.export.graph import export_graphml
from lit_attr.query.answers import Node, Subgraph
from tests.export.examples import PARTIAL, all_edges, opened, text_of
from tests.storage.examples import partly_harvested, random_storage

KEY = "0.mlp.up:1"


def expected(storage, key, k, depth, threshold, metric="attr"):
    """By brute force, up and down."""
    edges = {pair: v for pair, v in all_edges(storage, metric).items()}
    found = {}
    for here, there in ((1, 0), (0, 1)):
        frontier, seen = {key}, {key}
        for _ in range(depth):
            reached = set()
            for node in frontier:
                near = [pair for pair in edges if pair[here] == node]
                near.sort(key=lambda pair: -abs(edges[pair][1].expected))
                for pair in near[:k]:
                    if abs(edges[pair][1].expected) >= threshold:
                        found[pair] = edges[pair]
                        reached.add(pair[there])
            frontier = reached - seen
            seen |= reached
    return found


@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
@pytest.mark.parametrize(("k", "depth", "threshold"), [(1, 1, 0), (2, 2, 0), (3, 3, 0), (100, 9, 0), (100, 9, 0.3)])
def test_networkx_reads_the_storages_numbers(tmp_path, k, depth, threshold, metric):
    storage = random_storage()
    explorer = opened(tmp_path, storage)
    found = explorer.subgraph([KEY], k=k, depth=depth, threshold=threshold, metric=metric)
    graph = networkx.read_graphml(export_graphml(explorer, tmp_path / "g.graphml", found))
    right = expected(storage, KEY, k, depth, threshold, metric)
    assert set(graph.edges) == right.keys()
    for *pair, data in graph.edges(data=True):
        assert (data["value_raw"], data["value_normalized"]) == right[tuple(pair)]
        assert data["metric"] == metric
    for node, data in graph.nodes(data=True):
        assert f"{data['layer']}:{data['index']}" == node
        assert data["is_key"] == (node == KEY)
        assert data.get("token") == text_of(data["layer"], data["index"])


def test_nodes_whose_sources_were_not_harvested(tmp_path):
    explorer = opened(tmp_path, partly_harvested({"0.mlp.up": [1]}))
    path = export_graphml(explorer, tmp_path / "g.graphml", explorer.subgraph([KEY, "output:0"], k=9))
    graph = networkx.read_graphml(path)
    assert [node for node, known in graph.nodes(data="was_harvested") if not known] == [KEY]
    assert not list(graph.predecessors(KEY))


def test_what_the_graph_says_of_itself(tmp_path):
    explorer = opened(tmp_path, random_storage(provenance=PARTIAL))
    path = export_graphml(explorer, tmp_path / "g.graphml", explorer.subgraph([KEY]))
    data = networkx.read_graphml(path).graph
    assert json.loads(data["provenance"]) == PARTIAL
    assert data["partial"] == "3 of 10 batches"


def test_tokens_that_xml_cannot_hold(tmp_path):
    texts = {0: "\x00", 1: "\r", 2: " <&>\"'", 3: "\ud800", 4: "\n\t 你"}
    nodes = tuple(Node(f"embed:{n}", "embed", n, text) for n, text in texts.items())
    lonely = Subgraph(nodes, "attr", "both", True, 0, nodes, ())
    path = export_graphml(opened(tmp_path, random_storage()), tmp_path / "g.graphml", lonely)
    graph = networkx.read_graphml(path)
    found = [graph.nodes[f"embed:{n}"]["token"] for n in range(5)]
    assert found == ["\\x00", "\\r", " <&>\"'", "\\ud800", "\n\t 你"]


def test_an_existing_file_stays(tmp_path):
    explorer = opened(tmp_path, random_storage())
    path = export_graphml(explorer, tmp_path / "g.graphml", found := explorer.subgraph([KEY]))
    with pytest.raises(StorageError, match="exists already; --overwrite replaces it"):
        export_graphml(explorer, path, found)
    export_graphml(explorer, path, found, overwrite=True)
