"""What `lit-attr predict` refuses before it begins is said in one line that names the thing."""

import os

import lightning.pytorch  # noqa: F401 - its log handler keeps the standard error of its first import
import numpy as np
import pytest
import torch

from lit_attr.cli.main import main
from tests.toys import write_run, write_tokens

HELP = " (all options: lit-attr predict --help)"
CALLBACKS = """
from lightning.pytorch import Callback

class Thing: pass

class NeedsThing(Callback):
    def __init__(self, thing: Thing): pass

class NeedsPackage(Callback):
    def __init__(self): import package_that_is_not_there

class Fails(Callback):
    def __init__(self, n: int = 1): raise RuntimeError("no luck")
"""


@pytest.fixture
def given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_callbacks.py").write_text(CALLBACKS)
    write_run(tmp_path / "spd-s-toytoy00")
    write_tokens(tmp_path / "t.npy", 9)
    return ["--model.run", "spd-s-toytoy00", "--data.tokens", "t.npy", "--data.batch_size", "2"]


def error_of(capfd, *arguments):
    try:
        code = main(["predict", "--trainer.accelerator", "cpu", "--trainer.devices", "1", *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    shown = capfd.readouterr().err
    lines = [line for line in shown.splitlines() if line.startswith(("lit-attr", "Trace"))]
    assert len(lines) == 1, shown
    return lines[0].removeprefix("lit-attr: error: ").removesuffix(HELP)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "data: {}\nmodel:\n  memory_gb: 1\n\n  memory_gb: 2\n",
            "the key model.memory_gb is given twice, in line 3 and in line 5",
        ),
        (
            "trainer:\n  callbacks:\n  - {class_path: a, class_path: b}\n",
            "the key trainer.callbacks.class_path is given twice",
        ),
        ("# nothing\n", " is empty: expected keys such as model, data, trainer and writer"),
        ("- model\n", " holds a list: expected keys such as"),
        ("model\n", " holds a single value: expected keys such as"),
        ("model:\n  run: [1\n", ", line 3, column 1: "),
        (bytes(range(128, 256)), " is no text file: "),
        ("model:\n  run: x\0y\n", ", position 15: a character that no text has, #x0000"),
        ("model: {}\n---\ndata: {}\n", ": expected a single document in the stream, but found another document"),
        ("model:\n  run: &a [*a]\n", " has no end: an alias (*name) stands within what it repeats (&name)"),
        ("[" * 9000, " is nested too deeply"),
    ],
)
def test_configuration_files(given, tmp_path, text, problem, capfd):
    file = tmp_path / "a b.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = error_of(capfd, *given, "--config", str(file))
    assert message.startswith(str(file))
    assert problem in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data.n_batches", "some"], "--data.n_batches: expected int or 'whole_dataset', found 'some'"),
        (["--data.order", "x"], "--data.order: expected 'random' or 'file' or null, found 'x'"),
        (["--model.engine", "x"], "--model.engine: expected 'auto' or 'closed_form' or 'autograd', found 'x'"),
        (["--model.ci_threshold", "nan"], "--model.ci_threshold: expected float, found 'nan'"),
        (["--model.nothing", "1"], "unrecognized arguments: --model.nothing 1"),
        (["--config", "nowhere.yaml"], "--config: File does not exist: "),
        (
            ["--trainer.logger", "lightning.pytorch.loggers.CometLogger"],
            "lightning.pytorch.loggers.CometLogger: Requirement 'comet-ml",
        ),
        (
            ["--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir", "x"],
            "lightning.pytorch.loggers.TensorBoardLogger: Neither `tensorboard` nor `tensorboardX` is available.",
        ),
        (
            ["--trainer.callbacks", "own_callbacks.NeedsThing"],
            "--trainer.callbacks: own_callbacks.NeedsThing: the following arguments are required: thing",
        ),
        (
            ["--trainer.callbacks", "own_callbacks.NeedsThing", "--trainer.callbacks.thing", "3"],
            "own_callbacks.NeedsThing: thing: expected the dotted path of a class, found 3",
        ),
        (["--trainer.callbacks", "own_callbacks.Fails"], "own_callbacks.Fails: no luck"),
        (
            ["--trainer.callbacks", "own_callbacks.NeedsPackage"],
            "own_callbacks.NeedsPackage: No module named 'package_that_is_not_there'",
        ),
        (
            ["--trainer.callbacks", "own_callbacks.Nothing"],
            "--trainer.callbacks: own_callbacks.Nothing: module 'own_callbacks' has no attribute 'Nothing'",
        ),
        (
            ["--trainer.callbacks", "3"],
            "--trainer.callbacks: expected the dotted path of a class, found 3",
        ),
    ],
)
def test_keys_values_and_classes(given, change, message, capfd):
    assert message in error_of(capfd, *given, *change)


def test_nothing_is_given(capfd):
    assert error_of(capfd) == "--model.run is missing: it says whose components are attributed"


def test_a_torch_file_as_tokens(given, tmp_path, capfd):
    tokens = torch.from_numpy(np.load("t.npy").astype(np.int64))
    torch.save(tokens, "t.pt")
    torch.save(tokens, "old.pt", _use_new_zipfile_serialization=False)
    for name in ("t.pt", "old.pt"):
        message = error_of(capfd, *given, "--data.tokens", name)
        assert message.startswith(f"{name}: expected a .npy file, found a file of torch.save"), message


@pytest.mark.parametrize("form", ["two words", "="])
def test_home_folders(given, tmp_path, monkeypatch, capfd, form):
    """Shells expand neither `--key=~/file` nor what stands in a YAML file."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    os.rename("spd-s-toytoy00", home / "spd-s-toytoy00")
    os.rename("t.npy", home / "t.npy")
    (home / "c.yaml").write_text("model: {run: ~/spd-s-toytoy00}\ndata: {tokens: ~/t.npy, batch_size: 2}\n")
    options = [("--config", "~/c.yaml"), ("--writer.out_dir", "~/results"), ("--trainer.accelerator", "cpu")]
    words = [f"{k}={v}" for k, v in options] if form == "=" else [word for option in options for word in option]
    assert main(["predict", *words, "--trainer.devices", "1"]) == 0
    (result,) = home.glob("results/dataset_attributions/s-toytoy00/*/dataset_attributions.pt")
    shown = capfd.readouterr().out
    assert f"ask it with: lit-attr query {result} sources KEY\nview it with: lit-attr view {result}\n" in shown
    for run in ("s-toytoy00", "~/spd-s-toytoy00"):
        assert main(["query", run, "edges", "--out_dir=~/results", "--json"]) == 0
    assert main(["verify", str(result).replace(str(home), "~")]) == 0
    assert main(["export", "s-toytoy00", "--out_dir=~/results", "--to", "parquet", "--out=~/e.parquet"]) == 0
    assert (home / "e.parquet").is_file()
    assert not (tmp_path / "~").exists()
