"""wandb's real client, offline."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toys import write_run, write_tokens

CONFIG = Path(__file__).parents[2] / "configs" / "wandb_run.yaml"


@pytest.mark.slow
def test_offline_and_a_restart_continues_the_same_wandb_run(tmp_path):
    run, tokens = write_run(tmp_path / "run"), write_tokens(tmp_path / "t.npy", 5)
    command = [
        *(sys.executable, "-m", "lit_attr.cli.main", "predict", "--config", str(CONFIG)),
        *("--model.run", str(run), "--data.tokens", str(tokens), "--data.batch_size", "2"),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "1"),
        *("--trainer.logger.init_args.offline", "true", "--trainer.logger.init_args.id", "toy-harvest"),
        *("--trainer.logger.init_args.save_dir", str(tmp_path)),
    ]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "harvest stored in" in done.stdout
    logs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert [re.sub(r".*-\d+_\d+-", "", folder.name) for folder in logs] == ["toy-harvest"] * 2
    content = b"".join(path.read_bytes() for path in logs[0].glob("*.wandb"))
    for logged in (b"tokens_per_second", b"coverage", b"targets_per_pass"):
        assert logged in content
