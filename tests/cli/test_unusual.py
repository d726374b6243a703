"""Results, tokens, outputs and options that are out of the ordinary end in an answer, or in one line."""

import dataclasses
import json
import shlex
import subprocess
import sys

import pytest
import torch

from lit_attr.cli.main import main
from lit_attr.query.explorer import Explorer
from lit_attr.storage.result_folders import subrun_folder
from lit_attr.topology.words import PARTIAL_FILE
from tests.parts.harvests import begin
from tests.storage.examples import random_storage

RUN = "s-1234abcd"


@pytest.fixture
def file(tmp_path):
    random_storage().save(tmp_path / "dataset_attributions.pt")
    return tmp_path / "dataset_attributions.pt"


@pytest.fixture
def tokenizer(tmp_path):
    names = ["[/INST]", "[b]", ":smile:", "é你", " x"]
    model = {"type": "WordLevel", "vocab": {name: n for n, name in enumerate(names)}, "unk_token": " x"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    return tmp_path / "tokenizer.json"


def error_of(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


def test_tokens_that_look_like_markup(file, tokenizer, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for question in (
        ["subgraph", "embed:0", "--k", "9"],
        ["matrix", "embed", "0.mlp.up"],
        ["sources", "0.mlp.up:1", "--sign", "both"],
    ):
        assert main(["query", str(file), *question, "--tokenizer", str(tokenizer)]) == 0
        shown = capsys.readouterr().out
        assert any(name in shown for name in ('"[/INST]"', '"[b]"', '":smile:"')), shown


def test_characters_that_the_output_has_not(file, tokenizer):
    command = [sys.executable, "-m", "lit_attr.cli.main", "query", str(file), "edge", "embed:3", "0.mlp.up:1"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run([*command, "--tokenizer", str(tokenizer)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "\\xe9\\u4f60" in done.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_output_that_cannot_be_written(file, options):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "lit_attr.cli.main", "query", str(file), "matrix", *options]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "lit-attr: error: cannot write the output: [Errno 28] No space left on device\n"


def test_an_output_that_nobody_reads(file):
    command = f"{shlex.quote(sys.executable)} -m lit_attr query {file} edges | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite(tmp_path, capsys, value):
    storage = random_storage()
    storage.regular_attr["0.mlp.up"]["0.attn.q"][1, 0] = value
    storage.save(path := tmp_path / "x.pt")
    pair = ["0.attn.q", "0.mlp.up"]
    for question in (["edge", "0.attn.q:0", "0.mlp.up:1"], ["matrix", *pair], ["matrix"], ["edges"]):
        assert "the stored sums are not finite" in error_of(capsys, "query", path, *question)
    refused = error_of(capsys, "index", path)
    assert refused.startswith(f"lit-attr: error: no index of {path}: targets of 0.attn.q: the stored sums are not")
    assert "the stored sums are not finite" in error_of(capsys, "export", path, "--to", "parquet")


def test_sums_in_half_precision(tmp_path):
    storage = random_storage()
    for tensors in (*storage.regular_attr.values(), storage.embed_attr, storage.unembed_attr, storage.ci_sum):
        tensors.update({layer: values.bfloat16() for layer, values in tensors.items()})
    storage = dataclasses.replace(storage, embed_unembed_attr=storage.embed_unembed_attr.bfloat16())
    storage.save(tmp_path / "x.pt")
    explorer = Explorer(tmp_path / "x.pt")
    exact = storage.w_unembed[:, 3].double() @ storage.embed_unembed_attr[:, 2].double()
    assert explorer.edge("embed:2", "output:3").raw == pytest.approx(float(exact), rel=1e-6)
    row = storage.regular_attr["0.mlp.up"]["0.attn.q"][1].double() / storage.ci_sum["0.attn.q"].double()
    row /= (storage.component_act_sq_sum["0.mlp.up"][1].double() / storage.n_tokens_processed).sqrt()
    found = explorer.sources("0.mlp.up:1", sign="both", layers="0.attn.q").entries
    assert {e.component_idx: e.value for e in found} == pytest.approx(dict(enumerate(row.tolist())), rel=1e-6)
    assert explorer.edges().edges
    assert explorer.block("0.attn.q", "0.mlp.up", normalized=False).values[1].tolist() == pytest.approx(
        storage.regular_attr["0.mlp.up"]["0.attn.q"][1].tolist()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["matrix", "foo", "0.mlp.up"], "unknown layer 'foo'; layers are: embed, 0.attn.q, 0.mlp.up"),
        (["matrix", "embed", "0.mlp.up", "--k", "0"], "k must be a whole number of at least 1, found 0"),
        (["matrix", "embed", "0.mlp.up", "--statistic", "mean"], "expected no layer, or a source layer and a target"),
        (["matrix", "--k", "3"], "--k is for the edges between two layers, which are not given"),
    ],
)
def test_options_that_do_not_go_together(file, capsys, arguments, message):
    assert message in error_of(capsys, "query", file, *arguments)


def test_an_edge_of_one_key(file, capsys):
    with pytest.raises(SystemExit) as end:
        main(["query", str(file), "edge", "0.mlp.up:1"])
    assert end.value.code == 2
    assert "usage: lit-attr query" in capsys.readouterr().err


def test_harvests_without_a_result(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(tmp_path))
    folder = subrun_folder(RUN, "da-20250101_000000", tmp_path)
    begin(folder, 2)
    for run in (RUN, folder):
        assert f"the harvest in {folder} is not finished, or not merged" in error_of(capsys, "query", run, "matrix")
    random_storage().save(folder / PARTIAL_FILE)
    assert f"only a partial result: {folder / PARTIAL_FILE}" in error_of(capsys, "query", RUN, "matrix")
    random_storage().save(older := subrun_folder(RUN, "da-20240101_000000", tmp_path) / "dataset_attributions.pt")
    assert main(["query", RUN, "matrix", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(older)
    assert "only a partial" in error_of(capsys, "query", RUN, "matrix", "--subrun_id", folder.name)
    assert "there is no file /nowhere/x" in error_of(capsys, "query", "/nowhere/x", "matrix")


@pytest.mark.parametrize("name", ["x" * 300, "x"])
@pytest.mark.parametrize("to", ["safetensors", "parquet", "graphml"])
def test_places_that_cannot_be_written(file, capsys, name, to):
    keys = ["--keys", "0.mlp.up:1"] if to == "graphml" else []
    where = file.parent / name if len(name) > 1 else "/proc/x"
    assert "cannot write" in error_of(capsys, "export", file, "--to", to, "--out", where, *keys)
