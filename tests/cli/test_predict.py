import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml

from lit_attr.cli.main import main
from lit_attr.query.attribution_repo import AttributionRepo
from tests.harvest.runs import assert_same
from tests.toys import write_run, write_tokens

CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]


@pytest.fixture
def given(tmp_path):
    run, tokens = write_run(tmp_path / "spd-s-toytoy00"), write_tokens(tmp_path / "t.npy", 9)
    return ["--model.run", str(run), "--data.tokens", str(tokens), "--data.batch_size", "2"]


def test_from_the_command_line_to_an_answer(given, tmp_path, capfd):
    assert main(["predict", *given, *CPU, "--writer.out_dir", str(tmp_path / "results")]) == 0
    out, err = capfd.readouterr()
    path = re.search(r"harvest stored in (\S+)", out)[1]
    assert path.startswith(str(tmp_path / "results" / "dataset_attributions" / "s-toytoy00" / "da-"))
    assert "tokens/s" in out + err
    assert main(["query", "s-toytoy00", "sources", "1.mlp.up:1", "--out_dir", str(tmp_path / "results")]) == 0
    assert "strongest positive sources" in capfd.readouterr().out


def test_yaml_and_overrides(given, tmp_path):
    model = {"alive_batches": 1, "ci_threshold": 0.5}
    config = {"data": {"n_batches": 2}, "model": model, "writer": {"out_dir": str(tmp_path / "a")}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    command = ["predict", "--config", str(tmp_path / "c.yaml"), *given, *CPU, "--writer.out_dir", str(tmp_path / "b")]
    assert main(command) == 0
    stored = AttributionRepo.open("s-toytoy00", tmp_path / "b").get_attributions()
    assert (stored.n_tokens_processed, stored.ci_threshold) == (2 * 2 * 8, 0.5)
    assert not (tmp_path / "a").exists()


def test_print_config(given, capsys):
    with pytest.raises(SystemExit) as end:
        main(["predict", *given, "--print_config"])
    assert end.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["batch_size"] == 2
    assert config["trainer"]["inference_mode"] is False
    assert config["writer"] == {
        "out_dir": None,
        "subrun_id": None,
        "commit_minutes": 10.0,
        "commit_batches": None,
        "patience_minutes": 5.0,
        "allow_other_versions": False,
        "dense": "auto",
        "dtype": "float32",
        "layout": "spd",
        "keep": None,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--model.run", "/nowhere"], "no run at '/nowhere'"),
        (["--model.run", "s-zzzzzzzz"], "no cache holds the run goodfire/spd/runs/s-zzzzzzzz (looked in"),
        (["--data.tokens", "/nowhere.npy"], "no token file at /nowhere.npy"),
        (["--trainer.precision", "bf16-true"], "trainer.precision 'bf16-true' is not supported"),
        (["--trainer.fast_dev_run", "true"], "trainer.limit_predict_batches is 1 (fast_dev_run sets it too)"),
        (["--data.batch_size", "0"], "data.batch_size must be at least 1"),
        (["--model.harvest_db", "/nowhere.db"], "no harvest database at /nowhere.db"),
        (["--trainer.devices", "0"], "the trainer cannot be built with these settings"),
        (["--trainer.strategy", "xx"], "the trainer cannot be built with these settings"),
        (["--trainer.max_time", "00:00:00:01"], "trainer.max_time does not end a harvest"),
        (["--trainer.strategy=ddp_spawn", "--trainer.devices=2"], "trainer.strategy starts processes from this one"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(given, change, message, capfd):
    assert main(["predict", *given, *CPU, *change]) == 2
    err = capfd.readouterr().err
    assert f"lit-attr: error: {message}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.enable_progress_bar", "false"],
        ["--trainer.barebones", "true"],
        ["--trainer.callbacks=lightning.pytorch.callbacks.TQDMProgressBar"],
    ],
)
def test_ordinary_flags_of_the_trainer(given, options, capfd):
    assert main(["predict", *given, *CPU, *options]) == 0
    assert "lit_attr: 5/5 batches" not in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.tokens", "bad"], "token id 99 is outside"),
        (["--data.tokens", "bad", "--model.alive_batches", "5"], "token id 99 is outside"),
        (["--writer.out_dir", "file"], "cannot create the folder"),
    ],
)
def test_a_mistake_on_one_of_two_ranks_is_explained(given, tmp_path, options, message):
    tokens = np.load(given[3])
    tokens[2] = 99  # batch 1: the second process
    np.save(tmp_path / "bad.npy", tokens)
    (tmp_path / "file").write_text("in the way")
    places = {"bad": str(tmp_path / "bad.npy"), "file": str(tmp_path / "file")}
    command = [sys.executable, "-m", "lit_attr.cli.main", "predict", *given, "--trainer.accelerator", "cpu"]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp", *(places.get(o, o) for o in options)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy(), timeout=120)
    assert done.returncode != 0
    assert f"lit-attr: error: {message}" in re.sub(r"batch \d, row \d, position \d: ", "", done.stderr)
    assert "Traceback" not in done.stderr
    assert AttributionRepo.open("s-toytoy00") is None


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [9, 1])
def test_two_gloo_ranks_are_one_process(tmp_path, n_rows):
    """Five batches on two processes, and one batch, so that a process has none."""
    run, tokens = write_run(tmp_path / "spd-s-toytoy00"), write_tokens(tmp_path / "t.npy", n_rows)
    given = [
        "--model.run",
        str(run),
        "--data.tokens",
        str(tokens),
        "--data.batch_size",
        "2",
        "--model.alive_batches",
        "1",
    ]
    command = [sys.executable, "-m", "lit_attr.cli.main", "predict", *given, "--trainer.accelerator", "cpu"]
    for name, options in (
        ("one", ["--trainer.devices", "1"]),
        ("two", ["--trainer.devices", "2", "--trainer.strategy", "ddp"]),
    ):
        full = [*command, *options, "--writer.out_dir", str(tmp_path / name)]
        done = subprocess.run(full, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "default"})
        assert done.returncode == 0, done.stderr
    one, two = (AttributionRepo.open("s-toytoy00", tmp_path / name).get_attributions() for name in ("one", "two"))
    assert one.n_tokens_processed == np.load(tokens).size
    assert_same(two, one)
    assert two.provenance["configuration"]["trainer"]["devices"] == 2
    assert len(list((tmp_path / "two" / "dataset_attributions" / "s-toytoy00").iterdir())) == 1
