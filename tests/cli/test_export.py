import json
import os
from itertools import cycle, product

import networkx
import pyarrow.parquet as parquet
import pytest

from lit_attr.cli.main import main
from lit_attr.query.attribution_repo import AttributionRepo
from tests.export.examples import PARTIAL
from tests.storage.examples import random_storage

RUN = "s-1234abcd"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "out" / "dataset_attributions" / RUN / "da-20250101_000000" / "dataset_attributions.pt"
    random_storage(provenance={"run_reference": "demo"}).save(path)
    return path


def test_safetensors(file, capsys, tmp_path):
    assert main(["export", RUN, "--to", "safetensors", "--shard_mb", "0.0002"]) == 0
    written = capsys.readouterr().out.split()
    assert len(written) > 2
    assert written[0] == str(file.parent / "safetensors" / "dataset_attributions.safetensors.index.json")
    assert (
        main(["export", RUN, "--to", "safetensors", "--out", str(tmp_path / "x"), "--out_dir", str(tmp_path / "out")])
        == 0
    )
    assert (
        len(json.loads((tmp_path / "x" / "dataset_attributions.safetensors.index.json").read_text())["weight_map"]) > 5
    )


def test_parquet_with_the_demos_tokens(file, capsys):
    assert main(["export", str(file), "--to", "parquet", "--k", "20", "--per", "target", "--metric", "attr_abs"]) == 0
    rows = parquet.read_table(capsys.readouterr().out.strip()).to_pylist()
    assert {row["metric"] for row in rows} == {"attr_abs"}
    token = next(row for row in rows if row["source_layer"] == "embed" and row["source_index"] == 0)
    assert token["source_token"] == "<s>"


def test_a_tokenizer_of_ones_own(file, capsys, tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "\u0120": 1, "\u0120a": 2}))
    (tmp_path / "merges.txt").write_text("\u0120 a\n")
    options = ["--k", "20", "--per", "target", "--tokenizer", str(tmp_path)]
    assert main(["export", str(file), "--to", "parquet", *options]) == 0
    rows = parquet.read_table(capsys.readouterr().out.strip()).to_pylist()
    texts = {row["source_index"]: row["source_token"] for row in rows if row["source_layer"] == "embed"}
    assert (texts[0], texts[2]) == ("a", " a")
    assert main(["export", str(file), "--to", "parquet", "--tokenizer", str(tmp_path / "none")]) == 2
    assert "no tokenizer at" in capsys.readouterr().err


def test_graphml(file, capsys):
    arguments = ["--keys", "h.0.mlp.c_fc:1", "embed:2", "--k", "1", "--depth", "1", "--threshold", "0", "--layer", "*"]
    assert main(["export", str(file.parent), "--to", "graphml", *arguments]) == 0
    graph = networkx.read_graphml(capsys.readouterr().out.strip())
    assert {node for node, data in graph.nodes(data=True) if data["is_key"]} == {"0.mlp.up:1", "embed:2"}
    assert len(graph.edges) == 3


def test_partial_results_say_so(tmp_path, capsys):
    random_storage(provenance=PARTIAL).save(tmp_path / "x.pt")
    assert main(["export", str(tmp_path / "x.pt"), "--to", "parquet"]) == 0
    captured = capsys.readouterr()
    assert "PARTIAL result, of 3 of 10 batches" in captured.err
    assert parquet.read_schema(captured.out.strip()).metadata[b"partial"] == b"3 of 10 batches"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["safetensors", "--k", "3"], "--k is no option of --to safetensors, which has --shard_mb, --out, --overwrite"),
        (
            ["parquet", "--keys", "embed:1"],
            "--keys is no option of --to parquet, which has --per, --k, --metric, --tokenizer, --out",
        ),
        (["graphml"], "--to graphml needs --keys"),
        (["graphml", "--keys", "embed"], "malformed component key 'embed'"),
        (["graphml", "--keys", "embed:9"], "no edges of embed:9: embed has 5 token ids (0 to 4)"),
        (["strongest", "--k", "0"], "k must be a whole number of at least 1, found 0"),
        (
            ["strongest", "--metric", "attr"],
            "--metric is no option of --to strongest, which has --k, --out, --overwrite",
        ),
        (["parquet", "--k", "0"], "k must be a whole number of at least 1, found 0"),
        (["safetensors", "--shard_mb", "0"], "shard_mb must be positive, found 0"),
    ],
)
def test_mistakes(file, capsys, arguments, message):
    assert main(["export", str(file), "--to", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_strongest_alone_are_a_result(file, capsys):
    """The file is found where the result was, and every command takes it; what it lacks is said."""
    assert main(["export", RUN, "--to", "strongest", "--k", "1"]) == 0
    strongest = file.with_suffix(".strongest")
    assert capsys.readouterr().out == f"{strongest}\n"
    assert main(["query", RUN, "sources", "0.mlp.up:1", "--k", "3", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["file"], answer["not_held"]) == (str(file), None)
    file.unlink()
    assert main(["query", RUN, "sources", "0.mlp.up:1", "--k", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["entries"][0]) == (str(strongest), answer["entries"][0])
    assert found["not_held"]["n"] == len(answer["entries"]) - len(found["entries"]) > 0
    assert main(["query", RUN, "sources", "0.mlp.up:1", "--k", "3"]) == 0
    assert "weaker ones were not kept: " in capsys.readouterr().out
    edges = [["query", RUN, "edge", f"embed:{source}", "0.mlp.up:1"] for source in range(5)]
    assert {main(edge) for edge in edges} == {0}
    assert "not held" in capsys.readouterr().out
    assert main(["verify", str(strongest)]) == 0
    assert "strongest edges alone, 1 of each list" in capsys.readouterr().out
    written = {"parquet": ["--k", "1"], "graphml": ["--keys", "0.mlp.up:1", "--k", "1"]}
    for to, options in written.items():
        assert main(["export", RUN, "--to", to, *options]) == 0
    capsys.readouterr()
    for refused in (
        ["query", RUN, "matrix", "embed", "0.mlp.up"],
        ["export", RUN, "--to", "parquet", "--overwrite"],
        ["index", RUN],
    ):
        assert main(refused) == 2
        assert "take the result that it was made from" in capsys.readouterr().err
    assert AttributionRepo.latest(RUN).path == strongest
    assert AttributionRepo.latest(RUN, subrun_id=file.parent.name).explore().n_kept == 1


def test_no_stored_harvest(capsys):
    assert main(["export", "s-zzzzzzzz", "--to", "parquet"]) == 2
    assert "no result of 's-zzzzzzzz': no such file, and none in" in capsys.readouterr().err


def test_no_command_writes_over_anything_but_its_own_earlier_product(file, tmp_path, capsys):
    """Not over a result, an index, or a product of another command; under their own names and through links."""
    assert main(["index", str(file)]) == 0
    made = {
        "edges.parquet": ["export", str(file), "--to", "parquet"],
        "graph.graphml": ["export", str(file), "--to", "graphml", "--keys", "embed:2"],
        "x.strongest": ["export", str(file), "--to", "strongest", "--k", "2"],
        "mass.png": ["plot", str(file), "mass"],
        "mass.svg": ["plot", str(file), "mass"],
    }
    for name, command in made.items():
        assert main([*command, "--out", str(tmp_path / name)]) == 0
        assert main([*command, "--out", str(tmp_path / name), "--overwrite"]) == 0
    tensors = ["export", str(file), "--to", "safetensors", "--out", str(tmp_path / "t")]
    assert main(tensors) == main([*tensors, "--overwrite"]) == main(["index", str(file)]) == 0
    foreign = [file, file.with_suffix(".index"), *(tmp_path / "t").iterdir(), *(tmp_path / name for name in made)]
    ways = cycle([os.symlink, os.link])
    for path, (name, command) in product(foreign, made.items()):
        if path.name == name:
            continue
        content, out = path.read_bytes(), path
        if command[0] == "plot":  # a picture's name ends in its kind
            out = tmp_path / f"other{name[-4:]}"
            next(ways)(path, out)
        assert main([*command, "--out", str(out), "--overwrite"]) == 2
        assert "is not replaced: it is " in capsys.readouterr().err
        assert path.read_bytes() == content
        if out != path:
            out.unlink()
    (tmp_path / "notes.pt").write_bytes(file.read_bytes())
    (tmp_path / "notes.index").write_text("my notes")
    assert main(["index", str(tmp_path / "notes.pt")]) == 2
    assert "notes.index is not replaced: it is a file of another kind" in capsys.readouterr().err
