import os

import pytest

from lit_attr import AttributionRepo
from lit_attr.errors import RunNotFoundError, StorageError
from lit_attr.query.explorer import Explorer
from lit_attr.query.result_name import ResultName
from lit_attr.storage.result_folders import run_folder
from tests.storage.examples import random_storage

RUN = "s-1234abcd"


@pytest.fixture
def harvests(tmp_path):
    """Two results, the second newer, and a harvest that is not finished."""
    folder = run_folder(RUN, tmp_path)
    for number, name in enumerate(("da-first", "da-second")):
        random_storage(number).save(folder / name / "dataset_attributions.pt")
        os.utime(folder / name / "dataset_attributions.pt", (number, number))
    (folder / "da-third").mkdir()
    (folder / "da-third" / "plan.json").touch()
    return folder


def test_from_a_run_to_an_answer(tmp_path, harvests):
    repo = AttributionRepo.latest(RUN, tmp_path)
    assert repo == AttributionRepo.open(RUN, tmp_path)
    answer = repo.explore().sources("output:1", k=2)
    wanted = repo.get_attributions().get_top_sources("output:1", k=2)
    assert [(e.component_key, e.value) for e in answer.entries] == [(e.component_key, e.value) for e in wanted]


def test_a_harvest_can_be_chosen(tmp_path, harvests):
    assert AttributionRepo.latest(RUN, tmp_path).subrun_id == "da-second"
    chosen = AttributionRepo.latest(RUN, tmp_path, subrun_id="da-first")
    assert (chosen.run_id, chosen.subrun_id, chosen.path.parent) == (RUN, "da-first", harvests / "da-first")


@pytest.mark.parametrize(
    ("run", "subrun_id", "message"),
    [
        (
            RUN,
            "da-third",
            "no result da-third .* is not finished, or not merged; see lit-attr status .*da-second, da-fi",
        ),
        (RUN, "da-none", "no result da-none of 's-1234abcd': no such file, .*; results are: da-second, da-first$"),
        ("s-none", None, "no result of 's-none': no harvest of it in .*s-none"),
        ("s-none", "da-none", "results are: none$"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, harvests, run, subrun_id, message):
    with pytest.raises(RunNotFoundError, match=message):
        AttributionRepo.latest(run, tmp_path, subrun_id=subrun_id)


def test_a_run_without_a_result(tmp_path):
    folder = run_folder(RUN, tmp_path) / "da-only"
    folder.mkdir(parents=True)
    (folder / "plan.json").touch()
    with pytest.raises(RunNotFoundError, match=r"no result of 's-1234abcd': the harvest in .* is not finished"):
        AttributionRepo.latest(RUN, tmp_path)
    assert AttributionRepo.open(RUN, tmp_path) is None
    with pytest.raises(StorageError, match=r"'\.\./x' is no harvest's id"):
        AttributionRepo.latest(RUN, tmp_path, subrun_id="../x")


def test_names_of_results(tmp_path):
    recorded = {"run_id": RUN, "checkpoint": "model_300.pth", "weights_digest": "0a1b"}
    path = run_folder(RUN, tmp_path) / "da-first" / "dataset_attributions.pt"
    random_storage(provenance=recorded).save(path)
    name = Explorer(path).name
    assert name == ResultName(str(path), RUN, "da-first", None, "model_300.pth", "0a1b")
    assert str(name) == "da-first of s-1234abcd, checkpoint model_300.pth"
    of_three = ResultName.read(path, Explorer(path).storage, 3)
    assert str(of_three) == "da-first of s-1234abcd (newest of 3), checkpoint model_300.pth"
    random_storage(provenance={"run_id": 3}).save(tmp_path / "x.pt")  # as another tool might write it
    assert Explorer(tmp_path / "x.pt").name == ResultName(str(tmp_path / "x.pt"), None, None, None, None, None)
