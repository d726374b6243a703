import os
from pathlib import Path

import pytest

from lit_attr.parts import present_workers
from lit_attr.parts.plan import Plan
from lit_attr.parts.present_workers import Presence


@pytest.fixture
def folder(tmp_path):
    """A harvest before its first commit."""
    folder = tmp_path / "run" / "da-x"
    (folder / "worker_states").mkdir(parents=True)
    Plan({"batch_size": 2}, 3).publish(folder)
    for name in ("generation_1.json", "generation_1_provenance.json", "harvest.pt"):
        (folder / name).write_text("{}")
    for name in ("worker_0.json", "worker_12_generation_2.json", ".worker_0.json.0a1b.tmp"):
        (folder / "worker_states" / name).write_text("{}")
    return folder


def test_the_last_who_leaves_removes_it(folder):
    first, second, third = (Presence(folder) for _ in range(3))
    assert first.counts
    assert not first.abandon()
    second.leave()
    assert len(os.listdir(folder)) == 5
    assert third.abandon()
    assert not folder.exists()
    assert folder.parent.exists()
    assert not third.abandon(), "it has left"


@pytest.mark.parametrize(
    "name",
    [
        "worker_states/dataset_attributions_rank_1.pt",
        "worker_states/.dataset_attributions_rank_1.pt.abc.tmp",
        "dataset_attributions.pt",
        "dataset_attributions.partial.pt",
        "notes.txt",
    ],
)
def test_what_may_be_wanted_stays(folder, name):
    (folder / name).write_text("content")
    before = sorted(folder.rglob("*"))
    assert not Presence(folder).abandon()
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def of_two_shards(folder):
    """The same, where targets are dealt out."""
    for shard in ("target_shard_0", "target_shard_1"):
        (folder / shard / "worker_states").mkdir(parents=True)
        for name in ("generation_1.json", "generation_1_provenance.json", "worker_states/worker_0.json"):
            (folder / shard / name).write_text("{}")
    return folder


def test_target_shards_are_removed_with_it(of_two_shards):
    assert Presence(of_two_shards).abandon()
    assert not of_two_shards.exists()


@pytest.mark.parametrize("name", ["worker_states/dataset_attributions_rank_1.pt", "notes.txt"])
def test_what_may_be_wanted_of_a_target_shard_stays(of_two_shards, name):
    (of_two_shards / "target_shard_1" / name).write_text("content")
    before = sorted(of_two_shards.rglob("*"))
    assert not Presence(of_two_shards).abandon()
    assert sorted(of_two_shards.rglob("*")) == before


def test_a_plan_that_is_gone_or_another_does_not_count(folder):
    present = Presence(folder)
    (folder / "plan.json").unlink()
    assert not present.counts
    assert not Presence(folder).counts
    Plan({"batch_size": 4}, 3).publish(folder)
    assert not present.counts
    assert not present.abandon()
    present = Presence(folder)
    assert present.counts
    present.leave()


def test_without_locks_nothing_is_removed(folder, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    present = Presence(folder)
    assert present.counts
    assert not present.abandon()
    assert folder.exists()


def test_a_worker_on_a_machine_that_does_not_see_its_lock_is_respected(folder, monkeypatch):
    """Some network file systems keep locks among the processes of one machine."""
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    elsewhere = Presence(folder)
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(present_workers, "machine", lambda: "another")
    assert not Presence(folder).abandon()
    assert elsewhere.counts
    assert sorted(folder.rglob("*")) == before
    elsewhere.leave()
    assert Presence(folder).abandon()


def test_who_was_killed_on_this_machine_keeps_nothing_there(folder):
    killed = Presence(folder)
    killed._plan.close()  # all that the system does
    assert len(os.listdir(folder / "worker_states")) == 4
    assert Presence(folder).abandon()
    assert not folder.exists()


def test_who_says_how_it_ended_while_the_harvest_is_removed(folder, monkeypatch):
    """Another process of the trainer; what it wrote is removed too."""
    rmdir = Path.rmdir
    late = [folder / "worker_states" / "worker_1.json"]

    def written_meanwhile(path):
        if late:
            late.pop().write_text("{}")
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", written_meanwhile)
    assert Presence(folder).abandon()
    assert not folder.exists()
