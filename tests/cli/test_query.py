import json

import pytest

from lit_attr.cli.main import main
from lit_attr.storage.storage import DatasetAttributionStorage
from tests.storage.examples import random_storage

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
    expected = [vars(e) if hasattr(e, "__dict__") else e for e in method("0.mlp.up:2", k=3, sign=sign, metric=metric)]
    assert answer["entries"] == expected
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
        (["sources", "1.mlp.up:0"], "no sources of 1.mlp.up:0: unknown layer '1.mlp.up'; layers are: embed, 0.mlp.up"),
        (["sources", "0.mlp.up:3"], "no sources of 0.mlp.up:3: 0.mlp.up has 3 components (0 to 2)"),
        (["sources", "embed:0"], "no sources of embed:0: nothing feeds the embedding"),
        (["targets", "output:0"], "no targets of output:0: the output feeds nothing"),
        (["targets", "embed:5"], "no targets of embed:5: embed has 5 token ids (0 to 4)"),
        (["edge", "0.mlp.up:0", "0.attn.q:0"], "no attr edge from 0.mlp.up:0 to 0.attn.q:0"),
        (["sources", "output:0", "--metric", "attr_abs"], "attributions to the output have no attr_abs"),
        (["sources", "output:0", "--k", "0"], "k must be at least 1, found 0"),
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


def test_a_run_of_an_impossible_name(capsys):
    assert main(["query", "x" * 5000, "sources", "output:0"]) == 2
    assert "no stored harvest of" in capsys.readouterr().err


def test_a_component_that_was_no_target(tmp_path, capsys):
    random_storage(provenance={"not_targets": {"0.mlp.up": [1]}}).save(tmp_path / "x.pt")
    assert ask(capsys, tmp_path / "x.pt", "sources", "0.mlp.up:1")["was_harvested"] is False
    assert ask(capsys, tmp_path / "x.pt", "sources", "0.mlp.up:2")["was_harvested"] is True
    assert main(["query", str(tmp_path / "x.pt"), "sources", "0.mlp.up:1"]) == 0
    assert "no target of the harvest" in " ".join(capsys.readouterr().out.split())


def test_narrow_terminals_cut_nothing_off(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert main(["query", str(file), "sources", "output:1", "--k", "1"]) == 0
    assert "…" not in capsys.readouterr().out


def test_no_stored_harvest(capsys, tmp_path):
    assert main(["query", "s-zzzzzzzz", "sources", "output:0"]) == 2
    assert "no stored harvest of 's-zzzzzzzz': no such file, and none in" in capsys.readouterr().err


def test_a_file_that_is_no_harvest(capsys, tmp_path):
    (tmp_path / "x.pt").write_text("no")
    assert main(["query", str(tmp_path / "x.pt"), "sources", "output:0"]) == 2
    assert "cannot read" in capsys.readouterr().err
