"""Commands on results of attr alone, and on those whose attr_abs is of a share of the sequences."""

import json

import pytest

from lit_attr.cli.main import main
from tests.storage.examples import attr_alone, from_a_share

QUESTIONS = [
    ["sources", "0.mlp.up:2"],
    ["targets", "embed:1"],
    ["edge", "embed:1", "0.mlp.up:2"],
    ["matrix"],
    ["matrix", "embed", "0.mlp.up"],
    ["edges"],
    ["subgraph", "0.mlp.up:2"],
]
OTHERS = [
    ["export", "--to", "parquet"],
    ["export", "--to", "graphml", "--keys", "0.mlp.up:2"],
    ["plot", "mass", "--out", "x.svg"],
    ["plot", "component", "0.mlp.up:2", "--out", "x.svg"],
    ["plot", "subgraph", "0.mlp.up:2", "--out", "x.svg"],
]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attr_alone().save(tmp_path / "alone.pt")
    return "alone.pt"


@pytest.mark.parametrize("command", [*(["query", *words] for words in QUESTIONS), *OTHERS], ids=" ".join)
def test_of_attr_alone_every_command_answers_and_refuses_attr_abs(alone, tmp_path, capsys, command):
    name, *words = command
    assert main([name, alone, *words, "--metric", "attr_abs"]) == 2
    said = capsys.readouterr()
    why = "attr_abs was not harvested (--model.metrics attr): ask for attr, or harvest with --model.metrics both"
    assert (said.out, why in said.err) == ("", True)
    assert [path.name for path in tmp_path.iterdir()] == [alone]
    assert main([name, alone, *words]) == 0  # no command takes attr_abs by itself


def test_an_index_of_attr_alone_says_so(alone, capsys):
    assert main(["index", alone]) == 0
    assert capsys.readouterr().out == "index written to alone.index, of attr alone: attr_abs was not harvested\n"


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_a_share_is_said_in_tables_and_json(tmp_path, capsys, question):
    path = str(tmp_path / "x.pt")
    from_a_share(0.25, 3).save(path)
    said = "attr_abs from 25 % of the sequences (3 of 10 tokens)"
    for options, is_said in ((["--metric", "attr_abs"], True), ([], False)):
        assert main(["query", path, *question, *options]) == 0
        assert capsys.readouterr().out.count(said) == is_said
        assert main(["query", path, *question, *options, "--json"]) == 0
        sample = {"share": 0.25, "n_tokens": 3, "n_all_tokens": 10} if is_said else None
        assert json.loads(capsys.readouterr().out)["sample"] == sample
