"""Which harvest a command continues, and which it refuses to."""

import json
import logging
import os
import re
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from lit_attr.data.random_order import RandomOrder
from lit_attr.errors import ConfigurationError, DataError, StorageError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.resume import HarvestSettings, open_harvest
from lit_attr.parts.freeze import current_generation
from lit_attr.parts.plan import Plan
from lit_attr.parts.software import named_versions, software
from lit_attr.storage.result_folders import Place
from lit_attr.topology.words import MERGED_FILE
from tests.harvest.runs import small_run, stop, work
from tests.toys import random_tokens, write_tokens

SETTINGS = HarvestSettings("s-toytoy00", "weights", "32-true", "both", 1.0, True, {"ci_threshold": 0.0})


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "tokens.npy", n_rows=8)


@pytest.fixture
def find(tokens, tmp_path):
    """The folder in which a command would work."""

    def find(subrun_id=None, world_size=1, settings=SETTINGS, **data):
        found = TokenDataModule(**{"tokens": tokens, "batch_size": 2, **data})
        generations, presence = open_harvest(settings, found, world_size, Place(tmp_path / "out", subrun_id))
        presence.leave()
        return next(iter(generations.values())).folder

    return find


def finish(folder):
    (folder / MERGED_FILE).touch()


def database(path, density):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE components (component_key TEXT PRIMARY KEY, firing_density REAL)")
        connection.execute("CREATE TABLE config (key TEXT, value TEXT)")
        connection.execute("INSERT INTO components VALUES ('h.0.mlp.c_fc:2', ?)", [density])
    connection.close()
    return path


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("batch_size: the harvest has 2, this command 4", {"data": {"batch_size": 4}}),
        ("data_digest: ", {"tokens": "other.npy"}),
        ("seq_len: the harvest has 8, this command 5", {"tokens": "short.npy"}),
        ("weights_digest: ", {"run": "other"}),
        ("ci_threshold: the harvest has 0.0, this command", {"model": {"alive_batches": 1, "ci_threshold": 0.2}}),
        ("alive_batches: the harvest has None, this command 2", {"model": {"alive_batches": 2}}),
        ("harvest_db: the harvest has None, this command '", {"model": {"harvest_db": "harvest.db"}}),
        ("metrics: the harvest has 'both', this command 'attr'", {"model": {"metrics": "attr"}}),
        ("abs_share: the harvest has 1.0, this command 0.5", {"model": {"abs_share": 0.5}}),
        ("n_batches: the harvest has 4, this command 3", {"data": {"n_batches": 3}}),
    ],
)
def test_other_settings(tmp_path, tokens, entry, change, named, caplog):
    """Refused for a harvest that is named; else the beginning of another harvest."""
    caplog.set_level(logging.INFO)
    run = small_run(tmp_path / "spd-s-toytoy00")
    write_tokens(tmp_path / "other.npy", 8, seed=1)
    write_tokens(tmp_path / "short.npy", 8, seq_len=5)
    database(tmp_path / "harvest.db", 0.5)
    folder = stop(1, run, tokens, tmp_path / "out")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    caplog.clear()
    change = dict(change)
    if change.pop("run", None):
        small_run(run, seed=1)
    model = change.get("model", {})
    if "harvest_db" in model:
        change = {"model": {"harvest_db": tmp_path / "harvest.db"}}
    tokens = tmp_path / change.pop("tokens", tokens)
    if named:
        with pytest.raises(ConfigurationError) as refused:
            work(run, tokens, tmp_path / "out", subrun_id=folder.name, **change)
        said = str(refused.value)
        assert said.startswith(f"cannot continue {folder}: ")
    else:
        assert work(run, tokens, tmp_path / "out", **change).folder != folder
        said = caplog.text
        assert f"not continuing the unfinished {folder}: " in said
    assert entry in said
    assert all(path.read_bytes() == content for path, content in before.items())


def test_another_order_of_rows(find, tmp_path):
    """More rows have another random order; in the order of the file, what is appended changes nothing before it."""
    longer = write_tokens(tmp_path / "longer.npy", 9)
    np.save(longer, np.concatenate([np.load(tmp_path / "tokens.npy"), np.load(longer)[-1:]]))
    find("da-random", n_batches=2)
    for change, entry in (
        ({"order": "file"}, "order: the harvest has 'random', this command 'file'"),
        ({"seed": 1}, "order_seed: the harvest has 0, this command 1"),
        ({"tokens": longer}, "order_rows: the harvest has 8, this command 9"),
    ):
        with pytest.raises(ConfigurationError, match=entry):
            find("da-random", n_batches=2, **change)
    assert find("da-random", n_batches=2, order="random") == find("da-random", n_batches=3)
    assert find("da-file", n_batches=2, order="file") == find("da-file", n_batches=5, order="file", tokens=longer)


def test_another_harvest_db(tmp_path, tokens):
    run = small_run(tmp_path / "spd-s-toytoy00")
    folder = stop(1, run, tokens, tmp_path / "out", model={"harvest_db": database(tmp_path / "a.db", 0.5)})
    for path, same in (("b.db", False), ("a.db", True)):
        if not same:
            database(tmp_path / path, 0.6)
            with pytest.raises(ConfigurationError, match="harvest_db: the harvest has"):
                work(run, tokens, tmp_path / "out", subrun_id=folder.name, model={"harvest_db": tmp_path / path})
        else:
            moved = (tmp_path / path).rename(tmp_path / "moved.db")  # its content counts, not its place
            assert work(run, tokens, tmp_path / "out", model={"harvest_db": moved}).folder == folder


def test_data_that_only_another_harvest_needs_is_not_read(find, monkeypatch):
    folder, asked, digest = find(), [], TokenDataModule.digest
    monkeypatch.setattr(TokenDataModule, "digest", lambda data, n: asked.append(n) or digest(data, n))
    assert find(n_batches=1) != folder
    assert find(n_batches=1, settings=replace(SETTINGS, weights_digest="other")) != folder
    assert set(asked) == {1}


def test_data_that_is_changed_while_targets_are_sought(tmp_path, tokens, monkeypatch):
    run, find = small_run(tmp_path / "spd-s-toytoy00"), AttributionHarvester.find_alive
    monkeypatch.setattr(AttributionHarvester, "find_alive", lambda self: (find(self), os.utime(tokens, (1, 1)))[0])
    with pytest.raises(DataError, match="was changed after it was opened"):
        work(run, tokens, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_precision(find):
    folder = find("da-one")
    other = HarvestSettings("s-toytoy00", "weights", "bf16-mixed", "both", 1.0, True, SETTINGS.targets)
    with pytest.raises(ConfigurationError, match="precision: the harvest has '32-true', this command 'bf16-mixed'"):
        find("da-one", settings=other)
    assert find(settings=other) != folder


def test_other_versions(find, monkeypatch):
    """Of another build they are no others; harvests that recorded none are continued by any."""
    mine = named_versions(software())
    folder = find("da-one")
    monkeypatch.setattr("lit_attr.parts.software.version", lambda _: "2.0.0")
    older = replace(SETTINGS, software=software())
    known = f"version of torch: the harvest has {mine['version of torch']}, this command 2.0.0 (--writer.allow_other"
    with pytest.raises(ConfigurationError, match=re.escape(known)):
        find("da-one", settings=older)
    assert find(settings=older) != folder
    assert find("da-one", settings=replace(older, any_versions=True)) == folder
    assert named_versions({"torch": "2.13.0+cpu"}) == named_versions({"torch": "2.13.0+cu130"})
    plan = json.loads((folder / "plan.json").read_bytes())
    (folder / "plan.json").write_text(json.dumps({**plan, "software": None}))
    assert find("da-one", settings=older) == folder


def test_a_row_that_the_version_before_did_not_look_at(find, tmp_path):
    """For restarts and other workers. A row behind the harvest counts where it decides the targets."""
    alive = replace(SETTINGS, targets={"alive_batches": 3})
    tokens = write_tokens(tmp_path / "many.npy", 2100)
    data = {"world_size": 2, "tokens": tokens, "batch_size": 700}
    find("da-all", **data)
    find("da-two", **data, n_batches=2)
    find("da-targets", **data, n_batches=2, settings=alive)
    for place, continued in ((1, []), (2098, ["da-two"])):
        rows = random_tokens(2100).numpy().astype(np.uint16)
        rows[RandomOrder(2100, 0)[np.array([place])]] += 1
        np.save(tokens, rows)
        for name, changes in {
            "da-all": {},
            "da-two": {"n_batches": 2},
            "da-targets": {"n_batches": 2, "settings": alive},
        }.items():
            if name in continued:
                find(name, **data, **changes)
            else:
                with pytest.raises(ConfigurationError, match=r"data_digest: the harvest has '\w{64}', this"):
                    find(name, **data, **changes)


def test_rows_of_an_extension_count_as_well(find, tokens):
    """Of workers that extend a harvest with other rows, only those go on whose rows the first one had."""
    folder = find("da-one", n_batches=2)
    find("da-one", n_batches=3)
    rows = np.load(tokens)
    rows[RandomOrder(8, 0)[np.array([5])]] += 1
    np.save(tokens, rows)
    for n_batches in (3, 4):
        with pytest.raises(ConfigurationError, match=r"data_digest: the harvest has '\w{64}' for its 3 batches, this"):
            find("da-one", n_batches=n_batches)
    with pytest.raises(StorageError, match="not that of the 3 batches of the harvest: expected the digest"):
        current_generation(folder, Plan.load(folder), 1, 3, TokenDataModule(tokens, batch_size=2).digest)


def test_the_newest_unfinished_one(find):
    finish(find())
    first = find()
    assert find() == first
    other = find(batch_size=4)
    assert find() == first
    second = find("da-99991231_000000")
    assert find() == second
    finish(second)
    assert find() == first
    assert find(batch_size=4) == other


def test_fewer_batches_than_an_unfinished_extension(find):
    folder = find(n_batches=2)
    assert find(n_batches=3) == folder
    other = find(n_batches=2)
    assert other != folder
    finish(other)
    assert find(n_batches=3) == folder


def test_a_job_that_is_started_again_finds_its_own(find, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    mine = find()
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    other = find("da-99991231_000000")
    assert Plan.load(mine).job == "7"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert find() == other
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert find() == mine
    finish(mine)
    assert find() == mine, "a job whose node failed just after the result was written"
    assert find(batch_size=4) not in (mine, other), "a job script with two harvests"
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    finish(other)
    assert find() not in (mine, other)


def test_tasks_of_an_array_are_jobs_of_their_own(find, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    for task, job in (("1", "9"), ("2", "7")):  # the last task has the array's own id
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        monkeypatch.setenv("SLURM_JOB_ID", job)
        assert Plan.load(find(f"da-{task}")).job == f"7_{task}"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for task in ("1", "2"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        assert find().name == f"da-{task}"


def test_a_threshold_without_batches_decided_nothing(find, tmp_path):
    """It could be set once, and is refused now; its harvests are continued."""
    before = replace(SETTINGS, targets={"alive_batches": None, "ci_threshold": 0.25})
    now = replace(SETTINGS, targets={"alive_batches": None, "ci_threshold": 0.0})
    folder = find(settings=before)
    assert find(settings=now) == folder
    assert find(folder.name, settings=now) == folder
    with pytest.raises(ConfigurationError, match=r"ci_threshold: the harvest has 0\.25, this command 0\.1"):
        find(folder.name, settings=replace(SETTINGS, targets={"alive_batches": 3, "ci_threshold": 0.1}))


def test_ids(find):
    with pytest.raises(StorageError, match=r"'\.\./x' is no harvest's id"):
        find("../x")


def test_a_result_without_a_harvest_is_not_written_over(find, tmp_path):
    """It is of another tool, or a copy: a harvest in its folder would replace it in the end."""
    folder = tmp_path / "out" / "dataset_attributions" / SETTINGS.run_id / "da-theirs"
    folder.mkdir(parents=True)
    (folder / MERGED_FILE).write_bytes(b"theirs")
    with pytest.raises(StorageError, match=r"da-theirs holds a result without a harvest: give .* a new name"):
        find("da-theirs")
    assert [path.name for path in folder.iterdir()] == [MERGED_FILE]
