"""Results and harvests of the version before; see tests/before/README.md."""

import shutil
from pathlib import Path

import pytest

from lit_attr.errors import StorageError
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.status import status
from lit_attr.query.attribution_repo import AttributionRepo
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.verify import verify
from tests.harvest.runs import assert_same, work

BEFORE = Path(__file__).parents[1] / "before"
RUN_ID = "s-0before0"
MODEL = {"alive_batches": 2, "ci_threshold": 0.45}


@pytest.fixture
def given(tmp_path):
    """The run, under its own name, and the tokens."""
    return shutil.copytree(BEFORE / "run", tmp_path / RUN_ID), BEFORE / "tokens.npy"


@pytest.fixture
def folder(tmp_path):
    """Put one of the harvests under a root of results; its folder."""

    def folder(name):
        return shutil.copytree(BEFORE / name, tmp_path / "out" / "dataset_attributions" / RUN_ID / f"da-{name}")

    return folder


def test_a_result_opens_and_answers(folder, tmp_path):
    path = folder("finished") / "dataset_attributions.pt"
    repo = AttributionRepo.open(RUN_ID, tmp_path / "out")
    assert repo.path == path
    lines = verify(path)
    assert lines[0].startswith("digest: sha256 ")
    counted = "tokens: 96, as counted one by one"
    assert lines[-4:] == [counted, "metrics: attr and attr_abs", "written by: not recorded", "coverage: all 6 batches"]
    known = repo.get_attributions().recorded
    assert (known.schema, known.run_id, known.targets, known.partial, known.order) == (1, RUN_ID, None, None, "file")
    assert known.not_targets("0.mlp.up").tolist() == [0, 1]
    with_index = repo.explore()
    assert with_index.is_indexed
    (path.parent / "dataset_attributions.index").unlink()
    without = repo.explore()
    assert not without.is_indexed
    for key in ("0.mlp.up:2", "0.mlp.down:3"):
        assert with_index.sources(key, k=5) == without.sources(key, k=5)
    # Products with the unembedding were rounded more often when that index was built.
    found, right = (explorer.sources("output:1", k=5).entries for explorer in (with_index, without))
    assert [entry.component_key for entry in found] == [entry.component_key for entry in right]
    assert [entry.value for entry in found] == pytest.approx([entry.value for entry in right], rel=1e-6)


def test_a_new_harvest_has_the_numbers_of_the_version_before(given, tmp_path):
    path = work(*given, tmp_path / "out", model=MODEL, data={"order": "file"}).path
    found, expected = (DatasetAttributionStorage.load(file) for file in (path, BEFORE / "expected.pt"))
    assert_same(found, expected, 1e-6)
    assert found.embed_token_count.equal(expected.embed_token_count)
    assert found.provenance["not_targets"] == expected.provenance["not_targets"]


def test_a_harvest_is_not_continued_nor_merged(folder, given, tmp_path):
    """It stays as it is: the same command begins another."""
    harvest = folder("finished")
    (harvest / "dataset_attributions.pt").unlink()
    begun = {path: path.read_bytes() for path in harvest.iterdir() if path.is_file()}
    message = r"plan\.json: expected a harvest in format 5, found 1, .* with the version of lit_attr that began it"

    def continued(folder):
        work(*given, tmp_path / "out", model=MODEL, subrun_id=folder.name)

    for go_on in (merge_harvest, status, continued):
        with pytest.raises(StorageError, match=message):
            go_on(harvest)
    assert work(*given, tmp_path / "out", model=MODEL).folder != harvest
    assert {path: path.read_bytes() for path in harvest.iterdir() if path.is_file()} == begun
