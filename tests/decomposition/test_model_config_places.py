from pathlib import Path

import pytest

from lit_attr.decomposition.load import load_run
from lit_attr.decomposition.locate import locate_model_config
from lit_attr.errors import RunNotFoundError
from tests.toys import write_run

REFERENCE = "wandb:goodfire/spd/runs/t-9d2b8f02"
CACHED = "pretrain_cache/spd-t-9d2b8f02"


def place(folder: Path) -> Path:
    """A folder with a `model_config.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_config.yaml").touch()
    return folder


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("tree/runs/run", "cwd"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "tree" / "runs" / "run"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("target", "target"),
        ("target/model_step_9.pt", "target"),
        ("target/checkpoints/model_step_9.pt", "target"),
        ("target/checkpoints/model_step_9.pt", "target/checkpoints"),
        ("../target/model_step_9.pt", "../target"),
    ],
)
@pytest.mark.parametrize("base", ["tree/runs/run", "cwd"])
def test_relative_name_is_a_folder_or_a_checkpoint_below_its_configuration(
    tmp_path: Path, run_folder: Path, name: str, where: str, base: str
):
    expected = place(tmp_path / base / where)
    assert locate_model_config(name, run_folder).parent.samefile(expected)


@pytest.mark.parametrize("name", ["target", "target/model_step_9.pt", "target/checkpoints/model_step_9.pt"])
def test_relative_name_is_sought_in_the_run_directory_before_the_working_directory(
    tmp_path: Path, run_folder: Path, name: str
):
    place(tmp_path / "cwd" / "target")
    expected = place(run_folder / "target")
    assert locate_model_config(name, run_folder).parent == expected


@pytest.mark.parametrize("below", ["", "model_step_9.pt", "checkpoints/model_step_9.pt"])
def test_absolute_name_is_where_it_says(tmp_path: Path, run_folder: Path, below: str):
    expected = place(tmp_path / "elsewhere")
    assert locate_model_config(str(expected / below), run_folder).parent == expected


def test_parent_of_a_checkpoint_comes_before_its_grandparent(tmp_path: Path, run_folder: Path):
    place(tmp_path / "elsewhere")
    expected = place(tmp_path / "elsewhere" / "checkpoints")
    assert locate_model_config(str(expected / "model_step_9.pt"), run_folder).parent == expected


def test_without_a_name_it_is_beside_the_run(run_folder: Path):
    assert locate_model_config(None, place(run_folder)).parent == run_folder


PLACES = ["tree/runs/" + CACHED, "tree/" + CACHED, "out/" + CACHED, "tree/runs/run"]


@pytest.mark.parametrize("where", PLACES)
def test_reference_is_answered_by_every_cache_and_by_the_run_directory(tmp_path: Path, run_folder: Path, where: str):
    expected = place(tmp_path / where)
    assert locate_model_config(REFERENCE, run_folder).parent == expected


@pytest.mark.parametrize("first", range(len(PLACES) - 1))
def test_own_tree_comes_before_the_configured_root_and_both_before_the_run_directory(
    tmp_path: Path, run_folder: Path, first: int
):
    expected, *_ = [place(tmp_path / where) for where in PLACES[first:]]
    assert locate_model_config(REFERENCE, run_folder).parent == expected


@pytest.mark.parametrize("name", [REFERENCE, "../target", "target"])
def test_linked_run_has_its_target_beside_the_real_folder(tmp_path: Path, run_folder: Path, name: str):
    expected = place(tmp_path / "tree" / (CACHED if name == REFERENCE else f"runs/run/{name}"))
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "my run"
    link.symlink_to(run_folder, target_is_directory=True)
    place(run_folder)
    assert locate_model_config(name, link).parent.samefile(expected)


@pytest.mark.parametrize("first", [f"links/{CACHED}", f"tree/{CACHED}"])
def test_place_of_a_link_comes_before_that_of_the_real_folder(tmp_path: Path, run_folder: Path, first: str):
    expected, *_ = [place(tmp_path / where) for where in dict.fromkeys((first, f"tree/{CACHED}", f"out/{CACHED}"))]
    link = tmp_path / "links" / "runs" / "linked"
    link.parent.mkdir(parents=True)
    link.symlink_to(place(run_folder), target_is_directory=True)
    assert locate_model_config(REFERENCE, link).parent == expected


@pytest.mark.parametrize(
    ("name", "bases", "below"),
    [
        (None, ["tree/runs/run"], [""]),
        ("target/model_step_9.pt", ["tree/runs/run", "cwd"], ["target/model_step_9.pt", "target", ""]),
    ],
)
def test_missing_configuration_is_refused_with_all_places(
    tmp_path: Path, run_folder: Path, name: str | None, bases: list[str], below: list[str]
):
    with pytest.raises(RunNotFoundError) as caught:
        locate_model_config(name, run_folder)
    listed = ", ".join(str(tmp_path / base / part) for base in bases for part in below)
    assert str(caught.value) == f"no model_config.yaml for the target model {name!r}; looked in {listed}"


def test_reference_that_neither_cache_nor_wandb_answers_is_refused_with_all_places(tmp_path: Path, run_folder: Path):
    with pytest.raises(RunNotFoundError) as caught:
        locate_model_config(REFERENCE, run_folder)
    listed = ", ".join(str(tmp_path / where) for where in PLACES)
    assert str(caught.value) == (
        f"no model_config.yaml for the target model {REFERENCE!r} (looked in {listed}), "
        "and wandb was asked for goodfire/spd/runs/t-9d2b8f02"
    )


def test_load_run_refuses_a_run_without_the_configuration_of_its_target(tmp_path: Path):
    run = write_run(tmp_path / "run", pretrained_model_name="somewhere/target.pt")
    (run / "model_config.yaml").unlink()
    with pytest.raises(RunNotFoundError, match=r"^no model_config.yaml for the target model 'somewhere/target.pt'; "):
        load_run(run)


@pytest.mark.parametrize(
    "names",
    [
        {"pretrained_model_name": "a"},
        {"pretrained_model_path": "a"},
        {"pretrained_model_name": "a", "pretrained_model_path": "b"},
    ],
)
def test_name_of_the_target_beats_its_path(tmp_path: Path, names: dict[str, str]):
    run = write_run(tmp_path / "run", **names)
    config = (run / "model_config.yaml").read_text()
    (run / "model_config.yaml").unlink()
    for folder, base in (("a", 11.0), ("b", 22.0)):
        (place(run / folder) / "model_config.yaml").write_text(f"{config}rotary_base: {base}\n")
    assert load_run(run).model.target_model.config.rotary_base == 11.0
