"""The commands of docs/viewer.md."""

import re
import shlex
from pathlib import Path

from lit_attr.cli.main import main
from tests.storage.examples import random_storage

PAGE = (Path(__file__).parents[2] / "docs" / "viewer.md").read_text()


def block(marker):
    return re.search(rf"<!-- {marker} -->\n```bash\n(.*?)```", PAGE, re.DOTALL)[1].strip()


def test_view(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "out" / "dataset_attributions" / "s-1234abcd" / "da-20250101_000000"
    random_storage().save(folder / "dataset_attributions.pt")
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    program, *arguments = shlex.split(block("test: view").replace("RUN_ID", "s-1234abcd"))
    assert program == "lit-attr"
    assert main(arguments) == 0
    assert re.search(r"dataset_attributions\.pt is shown at http://127\.0\.0\.1:\d+/ \(Ctrl-C", capsys.readouterr().out)
