import json
import subprocess
import sys

import pytest

from lit_attr.cli.main import main
from tests.parts.harvests import begin, complete_harvest
from tests.storage.examples import random_storage


@pytest.fixture
def file(tmp_path):
    random_storage(provenance={"run_reference": "demo"}).save(tmp_path / "dataset_attributions.pt")
    return tmp_path / "dataset_attributions.pt"


@pytest.mark.parametrize(
    "picture",
    [
        ["mass"],
        ["component", "0.mlp.up:1"],
        ["subgraph", "0.mlp.up:1", 'embed:"<s>"', "--k", "2", "--depth", "1", "--layer", "*"],
    ],
    ids=lambda picture: picture[0],
)
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures(file, tmp_path, capsys, picture, kind):
    out = tmp_path / f"x.{kind}"
    assert main(["plot", str(file), *picture, "--metric", "attr_abs", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_bytes()[:5] == (b"\x89PNG\r" if kind == "png" else b"<?xml")
    assert main(["plot", str(file), *picture, "--out", str(out)]) == 2
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert main(["plot", str(file), *picture, "--out", str(out), "--overwrite"]) == 0


def test_a_tokenizer_of_ones_own(file, tmp_path):
    names = {name: index for index, name in enumerate(("zero", "one", "two", "three", "four"))}
    model = {"type": "WordLevel", "vocab": names, "unk_token": "zero"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    options = ["--tokenizer", str(tmp_path / "tokenizer.json"), "--out", str(tmp_path / "x.svg")]
    assert main(["plot", str(file), "component", "0.mlp.up:1", *options]) == 0
    assert any(name in (tmp_path / "x.svg").read_text() for name in names)


@pytest.mark.parametrize("value", ["nan", "inf", "x"])
def test_a_threshold_that_is_no_number(file, capsys, value):
    with pytest.raises(SystemExit) as end:
        main(["plot", str(file), "subgraph", "embed:0", "--threshold", value, "--out", "x.svg"])
    assert end.value.code == 2
    assert f"argument --threshold: expected a number, found '{value}'" in capsys.readouterr().err


def test_stability(tmp_path, capsys):
    complete_harvest(tmp_path / "h")
    out = tmp_path / "x.svg"
    assert main(["plot", str(tmp_path / "h"), "stability", "--k", "2", "--targets", "3", "--out", str(out)]) == 0
    assert "Jaccard index of the top 2 sources" in out.read_text()
    assert main(["plot", str(tmp_path / "h"), "convergence", "--out", str(tmp_path / "z.svg")]) == 2
    assert "convergence needs standard errors" in capsys.readouterr().err
    begin(tmp_path / "one", 1)
    assert main(["plot", str(tmp_path / "one"), "stability", "--out", str(tmp_path / "y.svg")]) == 2
    assert "stability needs at least 2 committed parts, found 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mass", "--out", "x.pdf"], "a picture's name ends in .png or .svg, found 'x.pdf'"),
        (["component", "embed", "--out", "x.svg"], "malformed component key 'embed'"),
        (["component", "embed:9", "--out", "x.svg"], "the embedding; no targets of embed:9: embed has 5 token ids"),
        (["component", "embed:1", "--k", "0", "--out", "x.svg"], "k must be a whole number of at least 1, found 0"),
    ],
)
def test_mistakes(file, capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", str(file), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys; from lit_attr.cli import export, plot; import lit_attr.export.table, lit_attr.export.graph, "
        "lit_attr.plots.figures; sys.exit(str([m for m in ('matplotlib', 'pyarrow', 'networkx', 'safetensors') "
        "if m in sys.modules] or ''))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )
