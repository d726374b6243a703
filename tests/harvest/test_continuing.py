"""A harvest that was stopped and continued is the one of a single process that was left alone."""

import logging
import shutil

import pytest
import torch
from lightning.pytorch import Callback

from lit_attr._version import __version__
from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.parts.generations import newest_generation
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.plan import Plan
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.verify import verify
from lit_attr.topology.words import STRONGEST_FILE
from tests.harvest.runs import assert_same, small_run, stop, work
from tests.toys import write_tokens

SUBRUN = "da-one"
N_BATCHES = 7


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A run, and tokens of seven batches, the last of them smaller."""
    folder = tmp_path_factory.mktemp("given")
    return small_run(folder / "spd-s-toytoy00"), write_tokens(folder / "tokens.npy", n_rows=2 * N_BATCHES - 1)


@pytest.fixture(scope="module")
def expected(given, tmp_path_factory):
    return load(work(*given, tmp_path_factory.mktemp("expected"), commit_batches=1).path)


def load(path):
    return DatasetAttributionStorage.load(path)


def assert_complete(path, expected):
    found = load(path)
    assert_same(found, expected, tolerance=1e-6)
    assert found.embed_token_count.equal(expected.embed_token_count)
    assert found.provenance["coverage"] == {"n_batches": 7, "batches": [[0, 6, 1]], "complete": True}


def assert_bitwise(path, expected):
    assert_complete(path, expected)
    theirs = dict(expected.named_sums())
    assert [name for name, tensor in load(path).named_sums() if not tensor.equal(theirs[name])] == []


def independent(rank, world_size, **data):
    return {"subrun_id": SUBRUN, "data": {"rank": rank, "world_size": world_size, **data}}


def harvests(out_dir):
    return sorted((out_dir / "dataset_attributions" / "s-toytoy00").iterdir())


@pytest.mark.parametrize(
    "stops", [[3], *(pytest.param(stops, marks=pytest.mark.slow) for stops in ([1], [6], [7], [2, 3], [1, 1, 1]))]
)
def test_stopped_and_continued(given, expected, tmp_path, stops):
    """Equal to the bit where commits are at the same places, as here."""
    folders = {stop(after, *given, tmp_path, commit_batches=1) for after in stops}
    written = work(*given, tmp_path, commit_batches=1)
    assert {written.folder} == folders
    assert_bitwise(written.path, expected)


def test_commits_elsewhere_change_nothing_but_rounding(given, expected, tmp_path):
    stop(3, *given, tmp_path)
    assert_complete(work(*given, tmp_path).path, expected)


def test_what_was_committed_is_not_done_again(given, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    stop(3, *given, tmp_path)
    assert "continuing" not in caplog.text

    class Count(Callback):
        ids = ()

        def on_predict_batch_end(self, trainer, pl_module, outputs, batch, *_):
            self.ids += (batch.batch_id,)

    count = Count()
    written = work(*given, tmp_path, count)
    assert count.ids == (3, 4, 5, 6)
    assert "continuing, with 3 of 7 batches done" in caplog.text
    assert written.folder == harvests(tmp_path)[0]


@pytest.mark.parametrize("ends", [pytest.param(1, marks=pytest.mark.slow), 6])
def test_world_sizes_1_2_4_3(given, expected, tmp_path, ends):
    folder = stop(ends, *given, tmp_path, subrun_id=SUBRUN)
    for rank in range(2):
        if ends == 1:
            stop(1, *given, tmp_path, **independent(rank, 2))
    work(*given, tmp_path, **independent(2, 4))  # the others of four never begin
    for rank in range(3):
        assert work(*given, tmp_path, **independent(rank, 3)).path is None
    assert_complete(merge_harvest(folder), expected)
    assert newest_generation(folder, Plan.load(folder)).number == (4 if ends == 1 else 3)


def test_one_process_ends_what_independent_workers_began(given, expected, tmp_path):
    stop(1, *given, tmp_path, **independent(0, 3))
    work(*given, tmp_path, **independent(2, 3))
    assert_complete(work(*given, tmp_path, subrun_id=SUBRUN).path, expected)


def test_more_workers_than_batches(given, tmp_path):
    few = {"n_batches": 2}
    expected = load(work(*given, tmp_path / "expected", data=few).path)
    for rank in range(4):
        folder = work(*given, tmp_path, **independent(rank, 4, **few)).folder
    parts = sorted(path.name for path in (folder / "worker_states").glob("*.pt"))
    assert parts == ["dataset_attributions_rank_0.pt", "dataset_attributions_rank_1.pt"]
    assert_same(load(merge_harvest(folder)), expected, 1e-6)


def test_more_batches_extend_an_unfinished_harvest(given, expected, tmp_path):
    folder = stop(2, *given, tmp_path, data={"n_batches": 3})
    written = work(*given, tmp_path)
    assert written.folder == folder
    assert_complete(written.path, expected)
    provenance = load(written.path).provenance
    assert (provenance["data_shape"], provenance["configuration"]["data"]["n_batches"]) == ([13, 8], "whole_dataset")
    assert [(line["n_batches"], line["world_size"]) for line in provenance["generations"]] == [(3, 1), (7, 1)]
    assert all(line["created"] and line["lit_attr_version"] == __version__ for line in provenance["generations"])


def means(run, tokens, n_batches):
    """Layer to mean causal importances over the first batches of two rows."""
    harvester = AttributionHarvester(run)
    data = TokenDataModule(tokens, batch_size=2)
    first = torch.cat([data.batch(batch_id) for batch_id in range(n_batches)])
    found = harvester.load_run().model.causal_importance(first, 0)
    return {layer: ci.double().mean((0, 1)) for layer, ci in found.items()}


@pytest.mark.slow
def test_an_extended_harvest_has_the_targets_of_one_that_was_not_interrupted(given, tmp_path, caplog):
    """Targets are found over as many batches of the data as was asked, however few of them the first run harvests."""
    caplog.set_level(logging.INFO)
    few, five, all_of_them = (torch.cat(list(means(*given, n).values())) for n in (1, 5, 7))
    threshold = float((few + five)[(few - five).abs().argmax()] / 2)  # between the two means of one component
    assert not torch.equal(few > threshold, five > threshold)
    model = {"alive_batches": 5, "ci_threshold": threshold}
    expected = load(work(*given, tmp_path / "expected", model=model).path)
    for n_batches in (1, 3, 7):
        written = work(*given, tmp_path, model=model, subrun_id=SUBRUN, data={"n_batches": n_batches})
    found = load(written.path)
    assert_same(found, expected, 1e-6)
    assert found.provenance["not_targets"] == expected.provenance["not_targets"]
    assert sum(found.provenance["n_alive"].values()) == int((five > threshold).sum())
    targets = {"rule": "mean_ci", "ci_threshold": threshold, "alive_batches": 5, "n_batches": 5}
    assert found.provenance["targets"] == expected.provenance["targets"] == targets
    assert "but the data has" not in caplog.text
    beyond = {"alive_batches": 50, "ci_threshold": threshold}
    found = load(work(*given, tmp_path / "beyond", model=beyond, data={"n_batches": 40}).path)
    assert "model.alive_batches is 50, but the data has 7 batches: targets are found over all of them" in caplog.text
    assert "data.n_batches is 40, but the data has 7 batches of 2 sequences: all of them are taken" in caplog.text
    assert sum(found.provenance["n_alive"].values()) == int((all_of_them > threshold).sum())
    assert found.provenance["targets"]["n_batches"] == 7


@pytest.mark.slow
def test_more_batches_extend_a_finished_harvest_if_it_is_named(given, expected, tmp_path):
    first = work(*given, tmp_path, data={"n_batches": 3})
    assert work(*given, tmp_path, data={"n_batches": 3}).folder != first.folder
    assert work(*given, tmp_path).folder != first.folder
    extended = work(*given, tmp_path, subrun_id=first.folder.name)
    assert extended.path == first.path
    assert_complete(extended.path, expected)


@pytest.mark.slow
def test_a_frozen_part_that_was_exchanged_is_refused_by_the_last_write(given, expected, tmp_path):
    """As merging refuses it: another part with a seal of its own, of the same harvest, and with as many batches."""
    folder = stop(1, *given, tmp_path, subrun_id=SUBRUN)
    other = stop(2, *given, tmp_path / "other", subrun_id=SUBRUN)

    class Exchange(Callback):
        def on_predict_epoch_end(self, trainer, pl_module):
            (self.frozen,) = (folder / "worker_states").glob("frozen_generation_1_rank_0_*.pt")
            self.kept = self.frozen.read_bytes()
            shutil.copy(other / "worker_states" / "dataset_attributions_rank_0.pt", self.frozen)

    exchange = Exchange()
    for worker in (independent(1, 3), independent(2, 3)):
        work(*given, tmp_path, **worker)  # a new generation, with two of its three workers
    with pytest.raises(StorageError) as refused:
        work(*given, tmp_path, exchange, subrun_id=SUBRUN)
    assert f"{exchange.frozen} is a foreign part: it holds batches 2 (0-1)" in str(refused.value)
    assert "Expected there are batches 1 (0)" in str(refused.value)
    assert not list(folder.glob("dataset_attributions*.pt"))
    with pytest.raises(StorageError, match="is a foreign part: it holds batches 2"):
        merge_harvest(folder)
    exchange.frozen.unlink()
    with pytest.raises(StorageError, match=rf"of 7 batches 1 \(0\) are missing; no file {exchange.frozen.name}\. Put"):
        work(*given, tmp_path, subrun_id=SUBRUN)
    exchange.frozen.write_bytes(exchange.kept)
    assert_complete(work(*given, tmp_path, subrun_id=SUBRUN).path, expected)


def test_everything_committed_and_nothing_written(given, expected, tmp_path):
    class Crash(Callback):
        def on_predict_epoch_end(self, trainer, pl_module):
            raise KeyError("before the writer")

    with pytest.raises(KeyError):
        work(*given, tmp_path, Crash(), commit_batches=1)
    (folder,) = harvests(tmp_path)
    assert not (folder / "dataset_attributions.pt").exists()
    written = work(*given, tmp_path, commit_batches=1)
    assert written.folder == folder
    assert_bitwise(written.path, expected)


def test_a_named_harvest_that_is_finished_is_written_again(given, expected, tmp_path):
    first = work(*given, tmp_path, subrun_id=SUBRUN, commit_batches=1)
    first.path.unlink()
    assert_bitwise(work(*given, tmp_path, subrun_id=SUBRUN, commit_batches=1).path, expected)


def test_parts_that_are_deleted_before_the_end(given, expected, tmp_path):
    """The process holds all that was in them."""

    class Delete(Callback):
        def __init__(self, step):
            self.step = step

        def on_predict_batch_start(self, trainer, pl_module, batch, step, *_):
            if step == self.step:
                shutil.rmtree(trainer.callbacks[1].folder / "worker_states")

        def on_predict_epoch_end(self, trainer, pl_module):
            shutil.rmtree(trainer.callbacks[1].folder / "worker_states", ignore_errors=True)

    for step in (None, 4):
        assert_bitwise(work(*given, tmp_path / str(step), Delete(step), commit_batches=1).path, expected)


def test_targets_are_found_once(given, tmp_path, monkeypatch):
    """The second worker may see other means: another device rounds differently."""
    model = {"alive_batches": 1, "ci_threshold": 0.2}
    stop(2, *given, tmp_path, model=model)
    expected = load(work(*given, tmp_path / "expected", model=model).path)
    monkeypatch.setattr("lit_attr.harvest.harvester.AttributionHarvester.find_alive", lambda _: pytest.fail("again"))
    found = load(work(*given, tmp_path, model=model).path)
    assert_same(found, expected, 1e-6)
    assert found.provenance["not_targets"] == expected.provenance["not_targets"]


def test_another_workers_header_counts(given, tmp_path, monkeypatch):
    """Two workers begin at once: the one whose file was there first decides for both."""
    from lit_attr.harvest.harvester import AttributionHarvester

    model = {"alive_batches": 1, "ci_threshold": 0.2}
    find = AttributionHarvester.find_alive

    def late(harvester):
        monkeypatch.setattr(AttributionHarvester, "find_alive", find)
        with torch.enable_grad():
            work(*given, tmp_path, model=model, **independent(1, 2))
        return {layer: ~mask for layer, mask in find(harvester).items()}

    monkeypatch.setattr(AttributionHarvester, "find_alive", late)
    folder = work(*given, tmp_path, model=model, **independent(0, 2)).folder
    expected = load(work(*given, tmp_path / "expected", model=model).path)
    assert_same(load(merge_harvest(folder)), expected, 1e-6)


def test_a_damaged_own_part_is_named(given, tmp_path):
    folder = stop(2, *given, tmp_path)
    part = folder / "worker_states" / "dataset_attributions_rank_0.pt"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(StorageError, match=rf"{part} is damaged"):
        work(*given, tmp_path)
    part.write_bytes(content[:-200])
    with pytest.raises(StorageError, match=rf"{part}"):
        work(*given, tmp_path)
    part.unlink()
    work(*given, tmp_path)


def test_an_unreadable_harvest_is_nobodys_to_continue(given, expected, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name in ("plan.json", "generation_1.json"):
        folder = stop(1, *given, tmp_path)
        (folder / name).write_text("{")
    assert_complete(work(*given, tmp_path).path, expected)
    assert len(harvests(tmp_path)) == 3
    assert caplog.text.count("not continuing the unfinished") == 3


def test_independent_workers_need_a_name(given, tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"must be given its id, the same for all of them: --writer\.subrun_id"
    ):
        work(*given, tmp_path, data={"rank": 1, "world_size": 2})


@pytest.mark.parametrize("rank", [-1, 2])
def test_rank_out_of_range(given, tmp_path, rank):
    with pytest.raises(ConfigurationError, match=f"data.rank must be 0 to data.world_size - 1 = 1, found {rank}"):
        work(*given, tmp_path, **independent(rank, 2))


class Untouched(Callback):
    def on_predict_batch_start(self, *_):
        pytest.fail("a batch was begun")


def test_the_strongest_edges_do_not_stand_behind_an_older_result(given, tmp_path):
    """That is seen before the first batch; alone they are the result, of all that was harvested in both steps."""
    whole = work(*given, tmp_path, data={"n_batches": 1}, subrun_id=SUBRUN).path
    more = {"data": {"n_batches": 3}, "subrun_id": SUBRUN, "keep": 2}
    with pytest.raises(StorageError, match="has all edges, and would be taken for the result"):
        work(*given, tmp_path, Untouched(), **more)
    whole.unlink()
    kept = work(*given, tmp_path, **more).path
    assert kept.name == STRONGEST_FILE
    assert f"tokens: {3 * 2 * 8}, as counted one by one" in verify(kept)
