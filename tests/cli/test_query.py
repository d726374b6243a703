import json
import os
import re
import subprocess
import sys

import pytest

from lit_attr.cli.main import main
from lit_attr.query.explorer import Explorer
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.storage.examples import partly_harvested, random_storage

RUN = "s-1234abcd"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "out" / "dataset_attributions" / RUN / "da-20250101_000000" / "dataset_attributions.pt"
    random_storage().save(path)
    return path


def ask(capsys, *arguments):
    assert main(["query", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("question", ["sources", "targets"])
@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_lists_are_the_storages(file, capsys, question, metric, sign):
    storage = DatasetAttributionStorage.load(file)
    method = storage.get_top_sources if question == "sources" else storage.get_top_targets
    answer = ask(capsys, file, question, "0.mlp.up:2", "--k", 3, "--sign", sign, "--metric", metric)
    expected = method("0.mlp.up:2", k=3, sign=sign, metric=metric)
    unknown = dict.fromkeys(("standard_error", "n_groups", "few_groups", "interval"))
    assert answer["entries"] == [{**vars(e), "token": None, "was_harvested": True, **unknown} for e in expected]
    assert answer["standard_errors"] == "not harvested"
    assert (answer["question"], answer["key"], answer["metric"]) == (question, "0.mlp.up:2", metric)
    assert answer["n_tokens"] == storage.n_tokens_processed


def test_edge(file, capsys):
    storage = DatasetAttributionStorage.load(file)
    answer = ask(capsys, file, "edge", "embed:2", "output:4")
    assert answer["raw"] == storage.get_attribution("embed:2", "output:4")
    assert answer["normalized"] == storage.get_attribution("embed:2", "output:4", normalized=True)


@pytest.mark.parametrize("run", [RUN, f"wandb:goodfire/spd/runs/{RUN}", f" {RUN} "])
def test_run_by_id_or_reference(file, capsys, run, tmp_path):
    assert ask(capsys, run, "sources", "output:1")["file"] == str(file)
    assert ask(capsys, run, "sources", "output:1", "--out_dir", tmp_path / "out")["file"] == str(file)


def test_tables(file, capsys):
    assert main(["query", str(file), "sources", "output:1", "--k", "2"]) == 0
    out = capsys.readouterr().out
    storage = DatasetAttributionStorage.load(file)
    for entry in storage.get_top_sources("output:1", 2):
        assert entry.component_key in out
        assert f"{entry.value:+.5g}" in out
    assert main(["query", str(file), "edge", "embed:2", "output:4"]) == 0
    assert f"{storage.get_attribution('embed:2', 'output:4'):+.5g}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sources", "0.mlp.up"], "malformed component key '0.mlp.up'"),
        (
            ["sources", "1.mlp.up:0"],
            "no sources of 1.mlp.up:0: unknown layer '1.mlp.up'; layers are: embed, 0.attn.q",
        ),
        (["sources", "0.mlp.up:3"], "no sources of 0.mlp.up:3: 0.mlp.up has 3 components (0 to 2)"),
        (["sources", "embed:0"], "no sources of embed:0: nothing feeds the embedding"),
        (["targets", "output:0"], "no targets of output:0: the output feeds nothing"),
        (["targets", "embed:5"], "no targets of embed:5: embed has 5 token ids (0 to 4)"),
        (["edge", "0.mlp.up:0", "0.attn.q:0"], "no attr edge from 0.mlp.up:0 to 0.attn.q:0"),
        (["sources", "output:0", "--metric", "attr_abs"], "attributions to the output have no attr_abs"),
        (["sources", "output:0", "--k", "0"], "k must be a whole number of at least 1, found 0"),
    ],
)
def test_unknown_keys_give_the_reason_and_exit_code_2(file, capsys, arguments, message):
    assert main(["query", str(file), *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_folders_as_run(file, capsys, tmp_path):
    assert ask(capsys, file.parent, "sources", "output:1")["file"] == str(file)
    run = tmp_path / f"spd-{RUN}"
    run.mkdir()
    assert ask(capsys, run, "sources", "output:1")["file"] == str(file)


@pytest.mark.parametrize("run", ["x" * 5000, "", "../../x", "/nowhere", "a/b", "."])
def test_a_run_of_an_impossible_name(capsys, run):
    for command in (["query", run, "sources", "output:0"], ["merge", run], ["status", run]):
        assert main(command) == 2
        assert re.match(r"lit-attr: error: no (such run|result|harvest)\b", capsys.readouterr().err)


@pytest.fixture
def partly(tmp_path):
    """A result without the sources of two layers' components, in part and altogether."""
    path = tmp_path / "partly.pt"
    partly_harvested({"0.mlp.up": [1], "0.attn.q": [0, 1]}).save(path)
    return path


def test_what_was_not_harvested_is_null_in_json(partly, capsys):
    edge = ask(capsys, partly, "edge", "embed:2", "0.mlp.up:1")
    assert (edge["raw"], edge["normalized"], edge["was_harvested"]) == (None, None, False)
    assert ask(capsys, partly, "sources", "0.mlp.up:1")["was_harvested"] is False
    assert ask(capsys, partly, "sources", "0.mlp.up:2")["was_harvested"] is True
    assert ask(capsys, partly, "targets", "embed:2")["n_not_harvested"] == 3
    assert ask(capsys, partly, "edges")["n_not_harvested"] == 3
    matrix = ask(capsys, partly, "matrix")
    row, column = matrix["targets"].index("0.attn.q"), matrix["sources"].index("embed")
    assert (matrix["values"][row][column], matrix["harvested"][row][column]) == (None, 0)
    block = ask(capsys, partly, "matrix", "embed", "0.mlp.up")
    assert [None in values for values in block["values"]] == [False, True, False]
    assert block["n_not_harvested"] == 1
    assert ask(capsys, partly, "subgraph", "embed:2")["n_not_harvested"] == 3
    graph = ask(capsys, partly, "subgraph", "0.mlp.up:1")
    assert [node["component_key"] for node in graph["nodes"] if not node["was_harvested"]] == ["0.mlp.up:1"]


@pytest.mark.parametrize(
    ("question", "caption"),
    [
        (["edge", "embed:2", "0.mlp.up:1"], "0.mlp.up:1 was no target of the harvest: what feeds it was not measured"),
        (["sources", "0.mlp.up:1"], "0.mlp.up:1 was no target of the harvest: what feeds it was not measured"),
        (["targets", "embed:2"], "3 components cannot appear as targets: they were no targets of the harvest"),
        (["matrix", "embed", "0.mlp.up"], "1 of 3 targets were not harvested, and are not shown"),
        (["subgraph", "0.mlp.up:1"], "so that what feeds them was not measured: 0.mlp.up:1"),
        (["matrix"], "3 of 6 pairs were harvested completely"),
    ],
)
def test_what_was_not_harvested_is_said_in_tables(partly, demo, capsys, monkeypatch, question, caption):
    for width in ("60", "200"):
        monkeypatch.setenv("COLUMNS", width)
        assert main(["query", str(partly), *question]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert caption in shown
        assert question[0] not in ("edge", "matrix") or "not harvested" in shown
    assert main(["query", str(demo), *question]) == 0
    assert caption not in " ".join(capsys.readouterr().out.split())


def test_answers_name_the_result(file, capsys):
    recorded = {"run_id": RUN, "checkpoint": "model_300.pth"}
    for seed, name in ((1, "da-2"), (2, "da-3")):
        random_storage(seed, provenance=recorded).save(file.parent.parent / name / file.name)
        os.utime(file.parent.parent / name / file.name, (10**10 + seed, 10**10 + seed))
    newest = file.parent.parent / "da-3" / file.name
    answer = ask(capsys, RUN, "sources", "output:1")
    assert answer["file"] == answer["result"]["file"] == str(newest)
    assert [answer["result"][n] for n in ("run_id", "subrun_id", "newest_of")] == [RUN, "da-3", 3]
    for named in ([RUN, "sources", "output:1", "--subrun_id", "da-3"], [newest.parent, "sources", "output:1"]):
        assert ask(capsys, *named)["result"] == {**answer["result"], "newest_of": None}
    assert main(["query", RUN, "edges", "--k", "1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"da-3 of {RUN} (newest of 3), checkpoint model_300.pth; " in shown


def test_narrow_terminals_cut_nothing_off(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert main(["query", str(file), "sources", "output:1", "--k", "1"]) == 0
    assert "…" not in capsys.readouterr().out


def test_no_stored_harvest(capsys, tmp_path):
    assert main(["query", "s-zzzzzzzz", "sources", "output:0"]) == 2
    assert "no result of 's-zzzzzzzz': no such file, and none in" in capsys.readouterr().err


def test_a_file_that_is_no_harvest(capsys, tmp_path):
    (tmp_path / "x.pt").write_text("no")
    assert main(["query", str(tmp_path / "x.pt"), "sources", "output:0"]) == 2
    assert "cannot read" in capsys.readouterr().err


@pytest.fixture
def demo(tmp_path):
    path = tmp_path / "demo.pt"
    random_storage(provenance={"run_reference": "demo"}).save(path)
    return path


def test_tokens_by_their_texts(demo, capsys):
    answer = ask(capsys, demo, "sources", "output:Mia")
    assert (answer["key"], answer["token"]) == ("output:2", "Mia")
    by_id = ask(capsys, demo, "sources", "lm_head:2")
    assert answer["entries"] == by_id["entries"]
    assert {e["token"] for e in answer["entries"] if e["layer"] == "embed"} <= {"<s>", ".", "Mia", "Lily", "Anna"}
    assert main(["query", str(demo), "sources", "output:Mia"]) == 0
    out = capsys.readouterr().out
    assert '"Lily"' in out or '"Anna"' in out
    assert main(["query", str(demo), "sources", "output:Mja"]) == 2
    assert 'no token has the text "Mja"' in capsys.readouterr().err


def test_a_tokenizer_of_ones_own(file, capsys):
    from lit_attr.assets import ASSETS

    answer = ask(capsys, file, "edge", "embed:Mia", "output:Lily", "--tokenizer", ASSETS / "tokenizer.json")
    assert [answer[n] for n in ("source", "source_token", "target", "target_token")] == [
        "embed:2",
        "Mia",
        "output:3",
        "Lily",
    ]


@pytest.mark.parametrize("raw", [True, False])
def test_matrix(file, capsys, raw):
    explorer = Explorer(file)
    answer = ask(capsys, file, "matrix", "--statistic", "mean", *["--raw"] * raw)
    found = explorer.matrix(statistic="mean", normalized=not raw)
    assert (answer["sources"], answer["targets"]) == (list(found.sources), list(found.targets))
    assert answer["values"] == [list(row) for row in found.values]
    block = ask(capsys, file, "matrix", "wte", "0.mlp.up", *["--raw"] * raw)
    assert block["values"] == explorer.block("embed", "0.mlp.up", normalized=not raw).values.tolist()
    assert [node["component_key"] for node in block["targets"]] == ["0.mlp.up:0", "0.mlp.up:1", "0.mlp.up:2"]


@pytest.mark.parametrize("width", ["40", "200"])
def test_matrix_as_a_table(file, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    assert main(["query", str(file), "matrix", "--raw"]) == 0
    out = capsys.readouterr().out
    assert ("fed by" in out) == (width == "200")
    mass = Explorer(file).matrix(normalized=False, layers=["0.attn.q"]).values[0][0]
    assert (f"{mass:.3g}" if width == "200" else f"{mass:.5g}") in out
    assert main(["query", str(file), "matrix", "embed", "0.mlp.up", "--k", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("0.mlp.up:") == 2
    assert shown.count("embed:") == 2


def test_edges(file, capsys):
    answer = ask(capsys, file, "edges", "--k", 2, "--sign", "negative", "--layer", "0.attn.q", "--metric", "attr_abs")
    found = Explorer(file).edges(k=2, sign="negative", metric="attr_abs", layers=["0.attn.q"]).edges
    assert [(e["source"], e["target"], e["value"]) for e in answer["edges"]] == [
        (e.source.component_key, e.target.component_key, e.value) for e in found
    ]
    assert main(["query", str(file), "edges", "--k", "1"]) == 0
    assert "strongest edges of each pair of layers" in capsys.readouterr().out


@pytest.mark.parametrize("indexed", [False, True])
def test_edges_by_strength(file, capsys, indexed):
    if indexed:
        assert main(["index", str(file)]) == 0
        capsys.readouterr()
    everything = [e for e in ask(capsys, file, "edges", "--k", 1000)["edges"] if not e["target"].startswith("0.attn.q")]
    assert len(everything) > 50
    chosen = ["--k", 7, "--layer", "0.mlp.*", "--layer", "output"]
    answer = ask(capsys, file, "edges", "--by", "strength", *chosen)
    strongest = sorted(everything, key=lambda edge: -abs(edge["value"]))[:7]
    assert [(e["source"], e["target"]) for e in answer["edges"]] == [(e["source"], e["target"]) for e in strongest]
    assert answer["by"] == "strength"
    positive = ask(capsys, file, "edges", "--by", "strength", "--sign", "positive", *chosen)["edges"]
    expected = sorted((e for e in everything if e["value"] > 0), key=lambda edge: -edge["value"])[:7]
    assert [e["value"] for e in positive] == pytest.approx([e["value"] for e in expected], rel=1e-5)
    assert main(["query", str(file), "edges", "--by", "strength"]) == 0
    assert "strongest edges between layers" in capsys.readouterr().out


def test_subgraph(file, capsys):
    options = ["--k", 2, "--depth", 3, "--threshold", 0.5, "--direction", "upstream", "--sign", "positive", "--raw"]
    answer = ask(capsys, file, "subgraph", "output:1", "0.mlp.up:0", *options)
    chosen = {"k": 2, "depth": 3, "threshold": 0.5, "direction": "upstream", "sign": "positive", "normalized": False}
    found = Explorer(file).subgraph(["output:1", "0.mlp.up:0"], **chosen)
    assert [e["value"] for e in answer["edges"]] == [e.value for e in found.edges]
    assert [n["component_key"] for n in answer["nodes"]] == [n.component_key for n in found.nodes]
    assert main(["query", str(file), "subgraph", "output:1"]) == 0
    assert "strongest edges around output:1 (attr, normalised)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["matrix", "embed"],
            "expected no layer, or a source layer and a target layer without --layer and --statistic, found ['embed']",
        ),
        (["matrix", "embed", "0.mlp.up", "--layer", "embed"], "without --layer"),
        (
            ["matrix", "embed", "0.mlp.down"],
            "no attr edges from embed to 0.mlp.down; layers that feed 0.mlp.down: 0.mlp.up",
        ),
        (["edges", "--layer", "7.*"], "no layer matches '7.*'"),
        (["subgraph", "output:1", "--depth", "0"], "depth must be a whole number of at least 1, found 0"),
        (["sources", "output:x"], "names a token by its text, and no tokenizer was found"),
    ],
)
def test_mistakes(file, capsys, arguments, message):
    assert main(["query", str(file), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_index_gives_the_same_answers(demo, capsys):
    questions = [["sources", "output:1"], ["targets", "embed:1"], ["targets", "0.mlp.up:1"], ["edges"], ["matrix"]]

    def answers():
        found = []
        for question in questions:
            assert main(["query", str(demo), *question]) == 0
            found.append(capsys.readouterr())
        return found

    without = answers()
    assert main(["index", str(demo)]) == 0
    assert capsys.readouterr().out == f"index written to {demo.with_suffix('.index')}\n"
    assert answers() == without
    assert main(["index", "s-zzzzzzzz"]) == 2
    assert "no result of 's-zzzzzzzz'" in capsys.readouterr().err


def test_asking_imports_only_what_it_needs(file):
    script = f"""
import sys
from lit_attr.cli.main import main
main(['query', {str(file)!r}, 'sources', 'output:1'])
heavy = {{'lightning', 'transformers', 'tokenizers', 'torchmetrics', 'polars', 'wandb', 'yaml'}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
