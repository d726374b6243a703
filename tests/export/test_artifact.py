import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from lit_attr.cli.main import main
from lit_attr.errors import StorageError
from lit_attr.export.artifact import export_wandb
from tests.export.examples import PARTIAL, stored


@pytest.fixture
def logged(monkeypatch):
    """Artifacts that reach wandb; they are its own, only the run is not."""
    import wandb

    found = []

    @contextmanager
    def init(**options):
        yield type("Run", (), {"log_artifact": lambda self, artifact: found.append((artifact, options))})()

    monkeypatch.setattr(wandb, "init", init)
    return found


@pytest.mark.parametrize("by_reference", [False, True])
def test_the_file_or_where_it_is(tmp_path, monkeypatch, logged, by_reference):
    path = tmp_path / "stored.pt"
    storage = stored(tmp_path, provenance=PARTIAL)
    size = path.stat().st_size
    monkeypatch.setattr("lit_attr.export.artifact.UPLOAD_LIMIT", size - by_reference)
    told = export_wandb(storage, path, "mine")
    ((artifact, options),) = logged
    (entry,) = artifact.manifest.entries.values()
    assert (entry.path, entry.size, entry.ref) == ("stored.pt", size, path.as_uri() if by_reference else None)
    assert told == f"dataset_attributions-s-1234abcd ({'by reference' if by_reference else 'the file itself'})"
    assert (artifact.name, artifact.type) == ("dataset_attributions-s-1234abcd", "dataset_attributions")
    assert artifact.metadata["partial"] == "3 of 10 batches"
    assert "provenance" not in artifact.metadata
    assert options["project"] == "mine"


def test_command(tmp_path, capsys, logged):
    stored(tmp_path, provenance=PARTIAL)
    assert main(["export", str(tmp_path / "stored.pt"), "--to", "wandb", "--project", "mine"]) == 0
    assert capsys.readouterr().out == "dataset_attributions-s-1234abcd (the file itself)\n"
    assert logged[0][1]["project"] == "mine"
    assert main(["export", str(tmp_path / "stored.pt"), "--to", "wandb", "--out", "x"]) == 2
    assert "--out is no option of --to wandb, which has --project" in capsys.readouterr().err


def test_what_wandb_refuses(tmp_path, monkeypatch):
    import wandb

    def init(**options):
        raise wandb.errors.UsageError("api_key not configured\nlong help")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(StorageError, match=r"cannot log \S*stored.pt as a wandb artifact: api_key not configured$"):
        export_wandb(stored(tmp_path), tmp_path / "stored.pt")


@pytest.mark.slow
def test_the_real_client_offline(tmp_path):
    stored(tmp_path, provenance=PARTIAL)
    command = [sys.executable, "-m", "lit_attr.cli.main", "export", "stored.pt", "--to", "wandb", "--project", "mine"]
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert b"dataset_attributions-s-1234abcd" in log.read_bytes()
