import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from torch import Tensor

from lit_attr.decomposition.harvest_db import alive_in_harvest
from lit_attr.errors import RunFormatError

RUN_ID = "s-1234abcd"
PATHS = {"0.mlp.up": "h.0.mlp.c_fc", "0.attn.q": "h.0.attn.q_proj"}
COUNTS = {"0.mlp.up": 4, "0.attn.q": 3}
SCHEMA = """
CREATE TABLE components (component_key TEXT PRIMARY KEY, layer TEXT NOT NULL, component_idx INTEGER NOT NULL,
    firing_density REAL NOT NULL, mean_activations TEXT NOT NULL, activation_examples TEXT NOT NULL,
    input_token_pmi TEXT NOT NULL, output_token_pmi TEXT NOT NULL);
CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE scores (component_key TEXT, score_type TEXT, score REAL NOT NULL, details TEXT NOT NULL,
    PRIMARY KEY (component_key, score_type));
"""
FIRED = {"h.0.mlp.c_fc:0": 0.25, "h.0.mlp.c_fc:3": 1e-9, "h.0.mlp.c_fc:1": 0.0, "h.0.attn.q_proj:2": 1.0}


def write_db(
    path: Path, densities: Mapping[str, float] = FIRED, wandb_path: str | None = f"wandb:goodfire/spd/runs/{RUN_ID}"
) -> Path:
    """A database as the original writes it: its JSON columns are BLOBs, whatever the schema says."""
    method = {"type": "SPDHarvestConfig", "wandb_path": wandb_path, "activation_threshold": 0.0}
    settings = {"method_config": method, "n_batches": 20, "batch_size": 32, "pmi_token_top_k": 40}
    if wandb_path is None:
        del settings["method_config"]
    examples = [{"token_ids": [-1, 5], "firings": [False, True], "activations": {"causal_importance": [0.0, 0.5]}}]
    columns = ({"causal_importance": 0.1}, examples, {"top": [[5, 1.5]], "bottom": []}, {"top": [], "bottom": []})
    blobs = [json.dumps(column).encode() for column in columns]
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
        for key, density in densities.items():
            layer, _, index = key.rpartition(":")
            row = (key, layer, int(index) if index.isdecimal() else 0, density, *blobs)
            connection.execute("INSERT INTO components VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        connection.executemany("INSERT INTO config VALUES (?, ?)", [(k, json.dumps(v)) for k, v in settings.items()])
        connection.execute("INSERT INTO scores VALUES ('h.0.mlp.c_fc:0', 'detection', 0.5, '{}')")
        connection.commit()
    return path


def alive(path: Path) -> dict[str, list[int]]:
    masks = alive_in_harvest(path, PATHS, COUNTS, RUN_ID)
    return {layer: mask.nonzero()[:, 0].tolist() for layer, mask in masks.items()}


def test_alive_is_what_has_a_row_and_a_density_above_zero(tmp_path: Path):
    assert alive(write_db(tmp_path / "harvest.db")) == {"0.mlp.up": [0, 3], "0.attn.q": [2]}


def test_masks_have_the_shape_of_the_model(tmp_path: Path):
    masks = alive_in_harvest(write_db(tmp_path / "harvest.db"), PATHS, COUNTS, RUN_ID)
    assert list(masks) == list(COUNTS)
    assert {layer: (tuple(mask.shape), str(mask.dtype)) for layer, mask in masks.items()} == {
        "0.mlp.up": ((4,), "torch.bool"),
        "0.attn.q": ((3,), "torch.bool"),
    }
    assert all(isinstance(mask, Tensor) for mask in masks.values())


def test_harvest_in_which_nothing_fired_has_nothing_alive(tmp_path: Path):
    assert alive(write_db(tmp_path / "harvest.db", {})) == {"0.mlp.up": [], "0.attn.q": []}


@pytest.mark.parametrize("name", ["a b.db", "a#b.db", "a?b.db", "a%20b.db", "ä&=b.db", "a b#c?mode=rw.db"])
def test_any_character_may_be_in_the_path(tmp_path: Path, name: str):
    folder = tmp_path / f"of {name}"
    folder.mkdir()
    assert alive(write_db(folder / name))["0.attn.q"] == [2]


def test_relative_path_is_one_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_db(tmp_path / "harvest.db")
    monkeypatch.chdir(tmp_path)
    assert alive(Path("harvest.db"))["0.attn.q"] == [2]


def test_reading_takes_no_lock_and_leaves_no_file(tmp_path: Path):
    path = write_db(tmp_path / "harvest.db")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert alive(path)["0.attn.q"] == [2]
        other.rollback()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "wandb_path",
    [RUN_ID, f"goodfire/spd/{RUN_ID}", f"https://wandb.ai/a/b/runs/{RUN_ID}?c", "/local/model_3.pth", "", None],
)
def test_harvest_of_the_run_or_of_one_it_does_not_name_is_accepted(tmp_path: Path, wandb_path: str | None):
    assert alive(write_db(tmp_path / "harvest.db", wandb_path=wandb_path))["0.attn.q"] == [2]


@pytest.mark.parametrize("wandb_path", ["s-0000aaaa", "wandb:goodfire/spd/runs/s-0000aaaa", "goodfire/spd/s-0000aaaa"])
def test_harvest_of_another_run_is_refused(tmp_path: Path, wandb_path: str):
    path = write_db(tmp_path / "harvest.db", wandb_path=wandb_path)
    with pytest.raises(RunFormatError) as caught:
        alive(path)
    assert str(caught.value) == f"{path} is the harvest of run s-0000aaaa, expected {RUN_ID}"


@pytest.mark.parametrize(
    "key", ["h.0.mlp.c_fc:4", "h.1.mlp.c_fc:0", "h.0.mlp.down_proj:0", "0.mlp.up:0", "h.0.mlp.c_fc:x", "h.0.mlp.c_fc"]
)
@pytest.mark.parametrize("density", [0.5, 0.0])
def test_harvest_of_another_model_is_refused_with_the_component(tmp_path: Path, key: str, density: float):
    path = write_db(tmp_path / "harvest.db", {**FIRED, key: density})
    with pytest.raises(RunFormatError) as caught:
        alive(path)
    assert str(caught.value) == f"{path} is the harvest of another model: it has a component {key!r}, the run has not"


@pytest.mark.parametrize("name", ["nowhere.db", "."])
def test_missing_file_is_refused(tmp_path: Path, name: str):
    with pytest.raises(RunFormatError, match=f"^no harvest database at {re.escape(str(tmp_path / name))}$"):
        alive(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not a database, but long enough to be told from one" * 40, "file is not a database"),
        (b"", "no such table: components"),
    ],
)
def test_file_that_is_no_harvest_database_is_refused(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "harvest.db"
    path.write_bytes(content)
    with pytest.raises(RunFormatError, match=f"^cannot read the harvest database {re.escape(str(path))}: {reason}$"):
        alive(path)


def test_truncated_database_is_refused(tmp_path: Path):
    path = write_db(tmp_path / "harvest.db", {f"h.0.mlp.c_fc:{i}": 0.5 for i in range(4)})
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RunFormatError, match=f"^cannot read the harvest database {re.escape(str(path))}: "):
        alive(path)
