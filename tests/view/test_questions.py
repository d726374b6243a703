"""Answers of the server are those of an `Explorer`."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from lit_attr.query.answer_json import plain
from lit_attr.query.answers import Node
from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.strongest_build import write_strongest
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.edge_errors import FEW
from lit_attr.storage.rounding import Rounding
from tests.storage.examples import attr_alone, from_a_share, partly_harvested, random_storage
from tests.view.serving import served


@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
@pytest.mark.parametrize("raw", [0, 1])
def test_neighbours(page, file, metric, raw):
    found = page.answer("neighbours", key="0.mlp.up:2", metric=metric, raw=raw)
    explorer = Explorer(file)
    for way, ask in (("sources", explorer.sources), ("targets", explorer.targets)):
        for sign in ("positive", "negative"):
            expected = ask("0.mlp.up:2", k=64, sign=sign, metric=metric, normalized=not raw).entries
            assert found[way][sign] == [vars(entry) for entry in expected]
    assert found["node"] == vars(Node("0.mlp.up:2", "0.mlp.up", 2, None))


def test_neighbours_are_the_storages(page, file):
    storage = DatasetAttributionStorage.load(file)
    found = page.answer("neighbours", key="output:Mia")
    assert found["node"]["component_key"] == "output:2"
    assert [(e["component_key"], e["value"]) for e in found["sources"]["negative"]] == [
        (e.component_key, e.value) for e in storage.get_top_sources("output:2", 64, "negative")
    ]


def test_why_there_are_none(page):
    assert page.answer("neighbours", key="embed:1")["sources"]["none"].endswith("nothing feeds the embedding")
    found = page.answer("neighbours", key="output:1", metric="attr_abs")
    assert found["sources"]["none"].endswith("attributions to the output have no attr_abs")
    assert found["targets"]["none"].endswith("the output feeds nothing")


def test_neighbours_that_are_components(page):
    found = page.answer("neighbours", key="0.mlp.up:2", components=1)
    layers = {entry["layer"] for sign in ("positive", "negative") for entry in found["sources"][sign]}
    assert layers == {"0.attn.q"}


@pytest.mark.parametrize("indexed", [False, True])
def test_what_was_not_harvested(tmp_path, indexed):
    partly_harvested({"0.mlp.up": [1], "0.attn.q": [0, 1]}).save(tmp_path / "x.pt")
    if indexed:
        build_index(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        unknown, known = (page.answer("neighbours", key=key) for key in ("0.mlp.up:1", "0.mlp.up:2"))
        assert (unknown["was_harvested"], unknown["node"]["was_harvested"]) == (False, False)
        assert (known["was_harvested"], known["node"]["was_harvested"]) == (True, True)
        assert page.answer("neighbours", key="embed:1")["targets"]["n_not_harvested"] == 3
        edge = page.answer("edge", source="embed:1", target="0.mlp.up:1")["by_metric"]["attr_abs"]
        assert (edge["raw"], edge["normalized"], edge["was_harvested"]) == (None, None, False)
        mass = page.answer("overview")
        cell = mass["targets"].index("0.attn.q"), mass["sources"].index("embed")
        assert (mass["values"][cell[0]][cell[1]], mass["harvested"][cell[0]][cell[1]]) == (None, 0)
        assert page.answer("pair", source="embed", target="0.mlp.up")["n_not_harvested"] == 1
        drawn = page.answer("subgraph", key="0.mlp.up:1", walk=["embed:1"])
        assert drawn["not_harvested"] == [{"source": "embed:1", "target": "0.mlp.up:1", "walked": True}]
        assert all(edge["target"] != "0.mlp.up:1" and edge["value"] for edge in drawn["edges"])
        sizes = {entry["layer"]: entry["n_not_harvested"] for entry in page.answer("about")["layers"]}
        assert sizes == {"embed": 0, "0.attn.q": 2, "0.mlp.up": 1, "0.mlp.down": 0, "output": 0}
        assert page.answer("search", text="0.mlp.up:1")["hits"][0]["was_harvested"] is False


@pytest.mark.parametrize("options", [{}, {"k": 2, "depth": 1, "sign": "negative"}, {"threshold": 0.7, "raw": 1}])
def test_subgraph(page, file, options):
    found = page.answer("subgraph", key="output:1", pin=["0.mlp.up:0"], **options)
    expected = Explorer(file).subgraph(
        ["output:1", "0.mlp.up:0"],
        **{"k": 3, **{name: value for name, value in options.items() if name != "raw"}},
        normalized=not options.get("raw"),
    )
    # Between the keys themselves there is no edge here.
    assert {(e["source"], e["target"]): e["value"] for e in found["edges"]} == {
        (e.source.component_key, e.target.component_key): e.value for e in expected.edges
    }
    assert {n["component_key"] for n in found["nodes"]} == {n.component_key for n in expected.nodes}


def test_a_walk_keeps_its_steps(page, file):
    walk = ["embed:Mia", "h.0.attn.q_proj:1", "0.mlp.up:0", "0.mlp.down:3"]
    found = page.answer("subgraph", key="output:4", walk=walk, sign="positive", threshold=1e30)
    steps = {(e["source"], e["target"]): e["value"] for e in found["edges"] if e["walked"]}
    keys = ["embed:2", "0.attn.q:1", *walk[2:], "output:4"]
    explorer = Explorer(file)
    assert steps == {pair: explorer.edge(*pair).normalized for pair in pairwise(keys)}
    assert [node["component_key"] for node in found["nodes"]] == keys
    assert len(found["edges"]) == len(steps)
    assert (found["walk"], found["pins"], found["unknown"]) == (keys[:-1], [], [])


def test_steps_and_pins_that_the_result_has_not_are_left_out_and_said(page):
    found = page.answer(
        "subgraph", key="output:4", walk=["embed:77", "embed:1"], pin=["9.mlp.up:1", "x", "h.0.mlp.c_fc:1"]
    )
    assert (found["walk"], found["pins"]) == (["embed:77", "embed:1"], ["9.mlp.up:1", "x", "0.mlp.up:1"])
    whys = {entry["key"]: entry["why"] for entry in found["unknown"]}
    assert whys["embed:77"] == "embed has 5 token ids (0 to 4)"
    assert whys["9.mlp.up:1"].startswith("unknown layer '9.mlp.up'; layers are: embed, 0.attn.q, 0.mlp.up")
    assert whys["x"].startswith("malformed component key 'x'")
    plain = page.answer("subgraph", key="output:4", walk=["embed:1"], pin=["0.mlp.up:1"])
    assert found["edges"] == plain["edges"]


def test_an_unknown_step_is_a_gap_in_the_walk(page):
    found = page.answer("subgraph", key="output:4", walk=["0.mlp.up:1", "9.mlp.up:1", "embed:1"], threshold=1e30)
    assert [(edge["source"], edge["target"]) for edge in found["edges"]] == [("embed:1", "output:4")]
    found = page.answer("subgraph", key="output:4", walk=["embed:1", "9.mlp.up:1"], threshold=1e30)
    assert found["edges"] == []


def test_edges_between_what_was_walked(page, file):
    found = page.answer("subgraph", key="0.mlp.up:1", walk=["embed:0", "output:1", "0.mlp.up:1"], k=1, depth=1)
    edges = {(e["source"], e["target"]): e for e in found["edges"]}
    explorer = Explorer(file)
    for pair, walked in ((("embed:0", "output:1"), True), (("embed:0", "0.mlp.up:1"), False)):
        assert (edges[pair]["value"], edges[pair]["walked"]) == (explorer.edge(*pair).normalized, walked)


def test_edge(page, file):
    explorer = Explorer(file)
    found = page.answer("edge", source="embed:0", target="0.mlp.up:1")["by_metric"]
    for metric in ("attr", "attr_abs"):
        expected = explorer.edge("embed:0", "0.mlp.up:1", metric=metric)
        assert (found[metric]["raw"], found[metric]["normalized"]) == (expected.raw, expected.normalized)
    assert list(page.answer("edge", source="embed:0", target="output:1")["by_metric"]) == ["attr"]


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
def test_overview_and_pairs(own_file, indexed, metric):
    if indexed:
        build_index(own_file)
    explorer = Explorer(own_file)
    with served(own_file) as page:
        assert page.answer("about")["indexed"] is indexed
        found = page.answer("overview", metric=metric, raw=1)
        expected = explorer.matrix(metric=metric, normalized=False)
        assert found["sources"] == list(expected.sources)
        assert found["values"] == [list(row) for row in expected.values]
        found = page.answer("pair", source="wte", target="0.mlp.up", metric=metric)
    for sign in ("positive", "negative"):
        edges = explorer.edges(k=64, sign=sign, metric=metric, layers=["0.mlp.up"]).edges
        assert [(e["source"], e["source_token"], e["target"], e["value"]) for e in found[sign]] == [
            (e.source.component_key, e.source.token, e.target.component_key, e.value)
            for e in edges
            if e.source.layer == "embed"
        ]


def test_what_takes_long_is_not_begun_unasked(own_file, monkeypatch):
    monkeypatch.setattr("lit_attr.view.viewed_result._FEW_EDGES", 3)
    with served(own_file) as page:
        assert page.answer("overview") == {"slow": True}
        assert page.answer("pair", source="embed", target="output") == {"slow": True}
        assert page.answer("overview", anyway=1)["values"]
        assert page.answer("pair", source="embed", target="output", anyway=1)["positive"]
        build_index(own_file)
        assert page.answer("overview")["slow"] is False


def test_about(page, file):
    found = page.answer("about")
    storage = DatasetAttributionStorage.load(file)
    assert (found["file"], found["n_tokens"]) == (str(file), storage.n_tokens_processed)
    assert found["layers"][0] == {"layer": "embed", "size": 5, "n_not_harvested": 0}
    assert found["layers"][-1] == {"layer": "output", "size": 5, "n_not_harvested": 0}
    assert (found["name"]["run_id"], found["name"]["newest_of"]) == ("s-litdemo0", None)
    assert found["provenance"] == storage.provenance
    assert found["partial"] is None
    assert found["rounding"] is None
    assert found["tokenizer"].endswith("tokenizer.json")


def test_partial_and_rounded_results_say_so(tmp_path):
    coverage = {"n_batches": 9, "batches": [[0, 3, 1]], "complete": False}
    rounding = Rounding(torch.tensor(0.0039))
    replace(random_storage(provenance={"coverage": coverage}), rounding=rounding).save(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        assert page.answer("about")["partial"] == "4 of 9 batches"
        assert page.answer("about")["rounding"] == str(rounding)


@pytest.mark.parametrize(
    ("storage", "why"),
    [
        (attr_alone(), "attr_abs was not harvested (--model.metrics attr): ask for attr, or harvest with"),
        (random_storage(provenance={"abs_share": 7}), "attr_abs cannot be shown: the provenance's abs_share is d"),
    ],
)
def test_of_attr_alone_attr_is_answered_and_attr_abs_refused(tmp_path, storage, why):
    storage.save(tmp_path / "x.pt")
    questions = [
        ("neighbours", {"key": "0.mlp.up:1"}),
        ("subgraph", {"key": "0.mlp.up:1"}),
        ("overview", {}),
        ("pair", {"source": "embed", "target": "0.mlp.up"}),
    ]
    with served(tmp_path / "x.pt") as page:
        about = page.answer("about")
        assert (about["why_no_abs"].startswith(why), about["abs_sample"]) == (True, None)
        for question, asked in questions:
            assert page.answer(question, **asked)
            assert why.removeprefix("attr_abs cannot be shown: ") in page.error(question, **asked, metric="attr_abs")
        assert list(page.answer("edge", source="embed:0", target="0.mlp.up:1")["by_metric"]) == ["attr"]


def test_a_share_of_the_sequences(tmp_path):
    from_a_share(0.25, 3).save(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        about = page.answer("about")
        said = "attr_abs from 25 % of the sequences (3 of 10 tokens)"
        assert (about["why_no_abs"], about["abs_sample"]) == (None, said)


def test_a_provenance_that_lists_targets_otherwise(tmp_path):
    random_storage(provenance={"not_targets": {"0.mlp.up": 3}, "configuration": None}).save(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        assert "not_targets of 0.mlp.up is damaged: expected indices, found 3" in page.error(
            "neighbours", key="0.mlp.up:1"
        )
        assert page.answer("neighbours", key="output:1")["was_harvested"]
        assert {"layer": "0.mlp.up", "size": 3, "n_not_harvested": None} in page.answer("about")["layers"]


@pytest.mark.parametrize("coverage", ["all", {"complete": False}, {"complete": False, "n_batches": 1, "batches": [3]}])
def test_coverage_that_cannot_be_read(tmp_path, coverage):
    random_storage(provenance={"coverage": coverage}).save(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        assert page.answer("about")["partial"].startswith("unknown share of batches (the provenance's coverage is")


def test_a_provenance_of_another_tool(tmp_path):
    odd = {"loss": float("nan"), "text": "\udcff", "shape": (1, 2), (3, 4): 5}
    random_storage(provenance=odd).save(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        assert page.answer("about")["provenance"] == {"loss": "NaN", "text": "\udcff", "shape": [1, 2]}


@pytest.mark.parametrize(
    ("question", "parameters", "message"),
    [
        ("neighbours", {}, "expected a parameter 'key'"),
        ("neighbours", {"key": "1.mlp.up:0"}, "unknown layer '1.mlp.up'; layers are: embed, 0.attn.q, 0.mlp.up"),
        ("neighbours", {"key": "0.mlp.up:3"}, "0.mlp.up has 3 components (0 to 2)"),
        ("neighbours", {"key": "0.mlp.up"}, "malformed component key '0.mlp.up'"),
        ("neighbours", {"key": "output:Mja"}, 'no token has the text "Mja"'),
        ("neighbours", {"key": "output:1", "metric": "abs"}, "metric must be one of ['attr', 'attr_abs'], found 'abs'"),
        ("neighbours", {"key": "output:1", "rows": "65"}, "rows must be a whole number from 1 to 64, found '65'"),
        ("subgraph", {"key": "output:1", "threshold": "-1"}, "threshold must be a number of at least 0, found '-1'"),
        ("subgraph", {"key": "output:1", "threshold": "nan"}, "threshold must be a number"),
        ("subgraph", {"key": "output:1", "k": "\u0663"}, "k must be a whole number"),
        ("subgraph", {"key": "embed:77", "walk": ["embed:78"]}, "embed has 5 token ids (0 to 4)"),
        ("subgraph", {"key": "output:1", "walk": [f"embed:{n}" for n in range(30)]}, "expected 24 at most, found 30"),
        ("subgraph", {"key": "9.mlp.up:1"}, "no edges of 9.mlp.up:1: unknown layer"),
        ("pair", {"source": "embed", "target": "0.mlp.down"}, "no attr edges from embed to 0.mlp.down"),
        (
            "pair",
            {"source": "embed", "target": "output", "metric": "attr_abs"},
            "no attr_abs edges from embed to output; attributions to the output have no attr_abs",
        ),
        ("edge", {"source": "output:1", "target": "embed:1"}, "no attr edge from output:1 to embed:1"),
        ("search", {"text": "x" * 300}, "expected 200 characters at most, found 300"),
        ("riddle", {}, "no question 'riddle'"),
    ],
)
def test_mistakes_are_explained(page, question, parameters, message):
    assert message in page.error(question, **parameters)


def test_sums_that_are_no_numbers(tmp_path):
    storage = random_storage()
    storage.regular_attr["0.mlp.down"]["0.mlp.up"][1, 2] = float("nan")
    storage.save(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        assert "not finite" in page.error("neighbours", key="0.mlp.down:1")
        assert "not finite" in page.error("edge", source="0.mlp.up:2", target="0.mlp.down:1")
        assert "not finite" in page.error("overview")
        assert page.answer("neighbours", key="0.mlp.down:0")["sources"]["positive"]


def test_a_mistake_of_our_own_is_an_answer_too(page, monkeypatch, caplog):
    monkeypatch.setattr("lit_attr.view.app.QUESTIONS", {"about": lambda *_: 1 / 0})
    status, content = page.ask("about")
    assert (status, content["error"]) == (500, "a mistake in lit-attr itself: ZeroDivisionError: division by zero")
    assert "ZeroDivisionError" in caplog.text


def test_answers_are_json_with_any_text(tmp_path):
    random_storage(provenance={"note": "\u2028</script>\ud7ff"}).save(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        assert json.loads(page.request("/api/about")[2])["answer"]["provenance"]["note"] == "\u2028</script>\ud7ff"


def test_the_strongest_alone(tmp_path):
    path = write_strongest(Blocks(random_storage()), tmp_path / "x.strongest", 1)
    explorer = Explorer(path)
    with served(path) as page:
        about = page.answer("about")
        assert (about["n_kept"], about["indexed"]) == (1, True)
        found = page.answer("neighbours", key="0.mlp.up:1")
        for way, ask in (("sources", explorer.sources), ("targets", explorer.targets)):
            for sign in ("positive", "negative"):
                expected = ask("0.mlp.up:1", k=64, sign=sign).not_held
                assert found[way]["not_held"][sign] == (expected and vars(expected))
        assert any(found["sources"]["not_held"].values())
        pair = page.answer("pair", source="embed", target="0.mlp.up")
        assert not pair["slow"]
        assert (len(pair["positive"]), pair["not_held"]["positive"]["n"] > 0) == (1, True)
        assert page.answer("overview")["values"] == [list(row) for row in explorer.matrix().values]
        edges = [page.answer("edge", source=f"embed:{n}", target="0.mlp.up:1")["by_metric"]["attr"] for n in range(5)]
        assert {(edge["raw"] is None, edge["is_held"]) for edge in edges} == {(True, False), (False, True)}
        weak = next(edge["source"] for edge in edges if not edge["is_held"])
        walked = page.answer("subgraph", key="0.mlp.up:1", walk=weak, k=9)
        assert walked["unheld"] == [{"source": weak, "target": "0.mlp.up:1", "walked": True}]
        assert (walked["not_harvested"], walked["not_held"]["n"] > 0) == ([], True)


@pytest.mark.parametrize("sure", [False, True])
def test_how_sure_values_are(sure_page, sure):
    page, explorer = sure_page
    asked = {"sure": int(sure), "rows": 2}
    about = page.answer("about")
    assert (about["standard_errors"], about["why_no_errors"], about["few"]) == ("random order", None, FEW)
    found = page.answer("neighbours", key="0.attn.o:1", **asked)
    pair = page.answer("pair", source="0.attn.q", target="0.attn.o", **asked)
    for sign in ("positive", "negative"):
        for way, ask in (("sources", explorer.sources), ("targets", explorer.targets)):
            expected = ask("0.attn.o:1", k=2, sign=sign, sure=sure)
            # In JSON pairs are lists.
            assert found[way][sign] == plain_again([vars(entry) for entry in expected.entries])
            for name in ("n_separated", "n_unsure"):
                assert found[way][name][sign] == getattr(expected, name)
        expected = explorer.pair_edges("0.attn.q", "0.attn.o", k=2, sign=sign, sure=sure)
        assert pair[sign] == plain_again([plain(edge) for edge in expected.edges])
        assert (pair["n_separated"][sign], pair["n_unsure"][sign]) == (expected.n_separated, expected.n_unsure)
    drawn, graph = (
        page.answer("subgraph", key="0.attn.o:1", walk=["0.attn.q:2", "0.attn.q:1", "0.attn.o:2"], **asked),
        explorer.subgraph(["0.attn.o:1"], sure=sure),
    )
    ends = {(edge["source"], edge["target"]): edge for edge in drawn["edges"]}
    assert {(e.source.component_key, e.target.component_key) for e in graph.edges} <= ends.keys()
    assert drawn["n_unsure"] == graph.n_unsure
    # Steps stay, sure or not; other edges between them are those of the drawing.
    assert ends["0.attn.q:1", "0.attn.o:2"]["walked"]
    assert all(edge["walked"] or is_sure(edge) for edge in drawn["edges"]) == sure
    assert not is_sure(ends["0.attn.q:1", "0.attn.o:2"])
    assert page.answer("edge", source="0.attn.q:2", target="0.attn.o:1")["by_metric"]["attr"] == plain_again(
        plain(explorer.edge("0.attn.q:2", "0.attn.o:1"))
    )


def is_sure(edge):
    return edge["interval"] is not None and edge["interval"][0] * edge["interval"][1] > 0


def plain_again(value):
    return json.loads(json.dumps(value))


def test_sure_ones_without_standard_errors(page):
    assert "the result has no standard errors" in page.answer("about")["why_no_errors"]
    for question in ("neighbours", "subgraph"):
        assert "which edges are sure is said by standard errors" in page.error(question, key="output:1", sure=1)
