from pathlib import Path

import pytest

from lit_attr.decomposition.reference import RunReference, run_id_of_folder
from lit_attr.errors import LitAttrError, ReferenceFormatError

URL = "https://wandb.ai/goodfire/spd/runs/"


@pytest.mark.parametrize(
    ("text", "entity", "project", "run_id"),
    [
        ("s-1234abcd", "goodfire", "spd", "s-1234abcd"),
        ("  s-1234abcd\n", "goodfire", "spd", "s-1234abcd"),
        ("wandb:s-1234abcd", "goodfire", "spd", "s-1234abcd"),
        (" wandb:s-1234abcd ", "goodfire", "spd", "s-1234abcd"),
        ("me/my-project/s-1234abcd", "me", "my-project", "s-1234abcd"),
        ("me/my-project/t-9d2b8f02", "me", "my-project", "t-9d2b8f02"),
        ("me/my-project/xi36b9az", "me", "my-project", "xi36b9az"),
        ("wandb:me/p/7-12345678", "me", "p", "7-12345678"),
        ("me/runs/12345678", "me", "runs", "12345678"),
        ("goodfire/spd/runs/t-9d2b8f02", "goodfire", "spd", "t-9d2b8f02"),
        ("wandb:goodfire/spd/runs/t-9d2b8f02", "goodfire", "spd", "t-9d2b8f02"),
        (URL + "s-1234abcd", "goodfire", "spd", "s-1234abcd"),
        (URL + "s-1234abcd/", "goodfire", "spd", "s-1234abcd"),
        (URL + "s-1234abcd/files/model.pth", "goodfire", "spd", "s-1234abcd"),
        (URL + "s-1234abcd?nw=nwuser", "goodfire", "spd", "s-1234abcd"),
        (URL + "s-1234abcd/overview?nw=a/b?c", "goodfire", "spd", "s-1234abcd"),
        ("wandb:" + URL + "1234abcd", "goodfire", "spd", "1234abcd"),
    ],
)
def test_reference_is_read_in_every_form(text: str, entity: str, project: str, run_id: str):
    assert RunReference.parse(text) == RunReference(entity, project, run_id)


INVALID = [
    "",
    "wandb:",
    "t-9d2b8f02",
    "1234abcd",
    "s-1234abc",
    "s-1234abcde",
    "s-1234ABCD",
    "S-1234abcd",
    "s_1234abcd",
    "wandb: s-1234abcd",
    "wandb:wandb:s-1234abcd",
    "WANDB:s-1234abcd",
    "x s-1234abcd",
    "s-1234abcd x",
    "project/s-1234abcd",
    "/project/s-1234abcd",
    "me//s-1234abcd",
    "me/my project/s-1234abcd",
    "me/p/ss-1234abcd",
    "me/p/-1234abcd",
    "me/p/s-1234abcd/",
    "me/p/s-1234abcd.pth",
    "me/p/run/s-1234abcd",
    "me/p/runs/1234abcd/x",
    "/me/p/runs/s-1234abcd",
    "/abs/p/s-1234abcd",
    "./p/x/s-1234abcd",
    "http://wandb.ai/goodfire/spd/runs/s-1234abcd",
    "https://wandb.com/goodfire/spd/runs/s-1234abcd",
    "https://wandb-ai/goodfire/spd/runs/s-1234abcd",
    "https://wandb.ai/goodfire/spd/s-1234abcd",
    "https://wandb.ai/goodfire/spd/runs/s-1234abcde",
    "https://wandb.ai/goodfire/spd/runs/s-1234abcd#top",
    "x" + URL + "s-1234abcd",
]


@pytest.mark.parametrize("text", INVALID)
def test_other_text_is_no_reference(text: str):
    assert RunReference.match(text) is None


@pytest.mark.parametrize("text", ["t-9d2b8f02", "project/s-1234abcd", " /some/path "])
def test_parse_refuses_with_the_text_and_all_forms(text: str):
    with pytest.raises(ReferenceFormatError) as caught:
        RunReference.parse(text)
    assert str(caught.value) == (
        f"{text!r} is not a run reference: expected 's-xxxxxxxx', 'p-xxxxxxxx', "
        "'entity/project/RUN_ID', 'entity/project/runs/RUN_ID' "
        "or 'https://wandb.ai/entity/project/runs/RUN_ID', with or without 'wandb:' before it"
    )


def test_format_error_is_a_value_error_of_the_package():
    assert issubclass(ReferenceFormatError, ValueError)
    assert issubclass(ReferenceFormatError, LitAttrError)


def test_text_of_a_reference_is_a_reference_to_the_same():
    reference = RunReference("me", "my-project", "t-9d2b8f02")
    assert RunReference.parse(str(reference)) == reference


def test_folder_is_project_and_run_id_without_the_entity():
    assert RunReference("me", "my-project", "t-9d2b8f02").folder == "my-project-t-9d2b8f02"


@pytest.mark.parametrize(
    ("folder", "run_id"),
    [
        ("/out/runs/spd-s-kjvmlp02", "s-kjvmlp02"),
        ("/out/spd/s-kjvmlp02", "s-kjvmlp02"),
        ("/out/spd/xi36b9az", "xi36b9az"),
        ("/out/runs/my-project-xi36b9az", "xi36b9az"),
        ("/out/runs/my-project-s-1234abcd", "s-1234abcd"),
        ("/out/wandb/run-20250101_120000-s-1234abcd/files", "s-1234abcd"),
        ("/out/wandb/s-1234abcd/files", "s-1234abcd"),
        ("/out/runs/My Run", "My Run"),
        ("/out/runs/spd-S-KJVMLP02", "spd-S-KJVMLP02"),
        ("relative", "relative"),
    ],
)
def test_run_id_of_a_folder_is_its_earliest_tail_that_is_one(folder: str, run_id: str):
    assert run_id_of_folder(Path(folder)) == run_id


def test_a_folder_is_named_after_itself_however_it_is_written(tmp_path, monkeypatch):
    (tmp_path / "run-a" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run-a" / "below")
    for text in ("..", "../", "../below/..", "../below/../files"):
        assert run_id_of_folder(Path(text)) == "run-a"
