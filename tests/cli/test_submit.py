import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_attr.cli.main import main
from tests.launch.standin import fake_slurm, git
from tests.toys import write_run, write_tokens

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Folder of the programs that stand in for SLURM's."""
    fake_slurm(tmp_path / "bin", tmp_path / "calls")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path / "bin"


@pytest.fixture
def given(tmp_path):
    run, tokens = write_run(tmp_path / "spd-s-toytoy00"), write_tokens(tmp_path / "t.npy", 9)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"model": {"run": str(run)}, "data": {"tokens": str(tokens)}}))
    return ["submit", "--config", str(tmp_path / "c.yaml"), "--n_gpus", "3"]


def test_dry_run_writes_nothing(given, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    branches = git(ROOT, "branch", "--list", "lit-attr-da-*")
    assert main([*given, "--dry_run", "--data.batch_size", "3", "--trainer.accelerator=cpu", "--time", "7"]) == 0
    out = capfd.readouterr().out
    assert "#SBATCH --time=7\n" in out
    assert "##SBATCH --gpus-per-node" in out
    assert "  batch_size: 3\n" in out
    assert "\narguments=(s-toytoy00)\n" in out
    assert "\nsbatch --parsable --dependency=afterok:ARRAY_JOB --kill-on-invalid-dep=yes " in out
    assert not (tmp_path / "out").exists()
    assert git(ROOT, "branch", "--list", "lit-attr-da-*") == branches


def test_an_earlier_harvest_goes_on(given, capfd):
    assert main([*given, "--dry_run", "--writer.subrun_id", "da-20250101_000000"]) == 0
    assert "\nsubrun_id=da-20250101_000000\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data.n_batches", "some"], "the configuration is not understood: --data.n_batches: expected int or"),
        (["--config", "/nowhere.yaml"], "the configuration is not understood: --config: File does not exist"),
        (["--model.nothing", "1"], "the configuration is not understood:"),
        (["--model.run", "/nowhere"], "no run at '/nowhere'"),
        (["--data.tokens", "/nowhere.npy"], "no token file at /nowhere.npy"),
        (["--data.batch_size", "0"], "data.batch_size must be at least 1"),
        (["--model.targets_per_pass", "0"], "model.targets_per_pass must be at least 1"),
        (["--data.world_size", "2"], "--data.world_size is given to each worker by its job: drop it, found 2"),
        (["--data.target_shard", "0"], "--data.target_shard is given to each worker by its job: drop it, found 0"),
        (["--data.target_shards", "2"], "--n_gpus 3 is no multiple of --data.target_shards 2: every target shard has"),
        (["--writer.subrun_id", "x y"], "'x y' is no harvest's id"),
        (["--time", "soon"], "--time must be minutes"),
        (["--snapshot", "no-such-branch"], "no branch or commit 'no-such-branch' in"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_is_submitted(given, change, message, sbatch, tmp_path, capfd):
    assert main([*given, *change]) == 2
    out, err = capfd.readouterr()
    assert err.startswith(f"lit-attr: error: {message}")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "calls").exists()
    assert not (tmp_path / "out").exists()


def test_nothing_heavy_is_imported_before_the_configuration():
    script = (
        "import sys, lit_attr.cli.submit; print(sorted({'torch', 'lightning', 'numpy', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_run(tmp_path, capfd, sbatch):
    assert main(["submit", "--n_gpus", "1"]) == 2
    assert "--model.run is missing" in capfd.readouterr().err


def test_no_sbatch(given, capfd, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(given) == 2
    assert capfd.readouterr().err.startswith(
        "lit-attr: error: no sbatch on the PATH: submit from a machine that has SLURM"
    )
