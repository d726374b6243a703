from pathlib import Path

import pytest

from lit_attr.decomposition.load import load_run
from lit_attr.decomposition.locate import latest_checkpoint, locate_run
from lit_attr.errors import LitAttrError, RunFormatError, RunNotFoundError
from tests.toys import write_run

RUN_ID = "s-toytoy01"
NAMES = "final_config.yaml or run_meta.yaml or experiment_config.yaml"


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "latest"),
    [
        (["model_5.pth", "model_100.pth", "model_20.pth"], "model_100.pth"),
        (["model_100.pth", "model_5.pth", "model_0.pth"], "model_100.pth"),
        (["model_a_9.pth", "model_b_10.pth"], "model_b_10.pth"),
        (["model.pth"], "model.pth"),
        (["model_final.pth"], "model_final.pth"),
        (["model_7.pt"], "model_7.pt"),
        (["model_7.pt", "model_20.pt"], "model_20.pt"),
        (["model_5.pth", "model_step_900.pt"], "model_5.pth"),
        (["model_5.pth", "optimizer_900.pth", "old_model_901.pth"], "model_5.pth"),
        (["model_5.pth", "model_9.pth.tmp", "model_10.safetensors", "model_config.yaml"], "model_5.pth"),
    ],
)
def test_latest_checkpoint_has_the_greatest_step(tmp_path: Path, names: list[str], latest: str):
    assert latest_checkpoint(touch(tmp_path, *names)) == tmp_path / latest


def test_several_checkpoints_of_which_one_has_no_step_are_refused(tmp_path: Path):
    touch(tmp_path, "model_5.pth", "model_best.pth", "model.pth")
    with pytest.raises(RunFormatError) as caught:
        latest_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"several checkpoints in {tmp_path}, of which ['model.pth', 'model_best.pth'] carry no step "
        "(model_<step>.pth): name the file to load"
    )


@pytest.mark.parametrize("names", [[], ["weights_5.pth", "model_5.bin"]])
def test_folder_without_checkpoint_is_refused(tmp_path: Path, names: list[str]):
    touch(tmp_path, *names)
    with pytest.raises(RunFormatError) as caught:
        latest_checkpoint(tmp_path)
    assert str(caught.value) == f"no checkpoint (model_<step>.pth) in {tmp_path}"


@pytest.mark.parametrize("given", ["", "model_3.pth"])
def test_run_without_configuration_is_refused(tmp_path: Path, given: str):
    touch(tmp_path, "model_3.pth")
    with pytest.raises(RunFormatError) as caught:
        locate_run(tmp_path / given)
    assert str(caught.value) == f"no configuration of a run ({NAMES}) in {tmp_path}"


@pytest.mark.parametrize("missing", ["nowhere", "nowhere/model_3.pth", "t-1234abcd"])
def test_path_that_is_not_there_is_refused_with_what_was_expected(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunNotFoundError) as caught:
        locate_run(missing)
    assert str(caught.value).startswith(
        f"no run at {missing!r}: expected a run directory, a checkpoint file, or a wandb reference such as "
        "'s-xxxxxxxx' or 'entity/project/runs/RUN_ID'"
    )


def test_not_found_error_is_a_file_not_found_error_of_the_package():
    assert issubclass(RunNotFoundError, FileNotFoundError)
    assert issubclass(RunNotFoundError, LitAttrError)


def test_named_checkpoint_is_taken_though_there_is_a_later_one(tmp_path: Path):
    touch(tmp_path, "final_config.yaml", "model_3.pth", "model_9.pth")
    assert locate_run(tmp_path / "model_3.pth").checkpoint == tmp_path / "model_3.pth"
    assert locate_run(tmp_path).checkpoint == tmp_path / "model_9.pth"


def test_link_to_a_checkpoint_leads_to_the_run_that_it_is_in(tmp_path: Path):
    real = touch(tmp_path / f"spd-{RUN_ID}", "final_config.yaml", "model_3.pth", "model_9.pth")
    (tmp_path / "best.pth").symlink_to(real / "model_3.pth")
    files = locate_run(tmp_path / "best.pth")
    assert (files.run_id, files.config, files.checkpoint) == (RUN_ID, real / "final_config.yaml", real / "model_3.pth")


@pytest.mark.parametrize("given", ["run", "./run", "run/model_3.pth", "../here/run"])
def test_relative_path_becomes_absolute(tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch):
    touch(tmp_path / "here" / "run", "final_config.yaml", "model_3.pth")
    monkeypatch.chdir(tmp_path / "here")
    files = locate_run(given)
    assert files.checkpoint.is_absolute()
    assert files.checkpoint.samefile("run/model_3.pth")
    assert files.config.samefile("run/final_config.yaml")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    touch(tmp_path / "run", "final_config.yaml", "model_3.pth")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate_run("~/run").checkpoint == tmp_path / "run" / "model_3.pth"


@pytest.mark.parametrize("place", [f"runs/spd-{RUN_ID}", f"spd/{RUN_ID}"])
def test_both_places_of_a_cache_answer(tmp_path: Path, place: str):
    folder = touch(tmp_path / "out" / place, "final_config.yaml", "model_3.pth")
    files = locate_run(RUN_ID)
    assert (files.run_id, files.config.parent, files.checkpoint.parent) == (RUN_ID, folder, folder)


def test_runs_comes_before_the_folder_of_training(tmp_path: Path):
    for place in (f"runs/spd-{RUN_ID}", f"spd/{RUN_ID}"):
        touch(tmp_path / "out" / place, "final_config.yaml", "model_3.pth")
    assert locate_run(RUN_ID).checkpoint.parent == tmp_path / "out" / "runs" / f"spd-{RUN_ID}"


def test_incomplete_place_gives_way_to_a_complete_one(tmp_path: Path):
    touch(tmp_path / "out" / "runs" / f"spd-{RUN_ID}", "final_config.yaml")
    complete = touch(tmp_path / "out" / "spd" / RUN_ID, "final_config.yaml", "model_3.pth")
    assert locate_run(RUN_ID).checkpoint.parent == complete


@pytest.mark.parametrize("lacking", [[], ["model_3.pth"], ["final_config.yaml"]])
def test_reference_that_neither_cache_nor_wandb_answers_is_refused_with_the_places(tmp_path: Path, lacking: list[str]):
    names = [f"runs/spd-{RUN_ID}", *(f"{name}/{RUN_ID}" for name in ("spd", "runs", "param_decomp", "decompositions"))]
    places = [tmp_path / "out" / name for name in names]
    for place in places if lacking else []:
        touch(place, *lacking)
    with pytest.raises(RunNotFoundError) as caught:
        locate_run(RUN_ID)
    missing = {
        "model_3.pth": f"no configuration of a run ({NAMES}) in",
        "final_config.yaml": "no checkpoint (model_<step>.pth) in",
    }
    looked_in = "; ".join(f"{place}: {missing[lacking[0]]} {place}" if lacking else str(place) for place in places)
    assert str(caught.value) == (
        f"no cache holds the run goodfire/spd/runs/{RUN_ID} (looked in {looked_in}), "
        f"and wandb was asked for goodfire/spd/runs/{RUN_ID}"
    )


def test_own_variable_beats_that_of_spd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ours, theirs = (write_run(tmp_path / n / "runs" / f"spd-{RUN_ID}", seed=s) for s, n in enumerate("ab"))
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("SPD_OUT_DIR", str(tmp_path / "b"))
    digest = load_run(RUN_ID).weights_digest
    assert digest == load_run(ours).weights_digest
    assert digest != load_run(theirs).weights_digest


def test_without_variables_the_cache_is_out_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LIT_ATTR_OUT_DIR")
    write_run(tmp_path / "work" / "out" / "runs" / f"spd-{RUN_ID}")
    monkeypatch.chdir(tmp_path / "work")
    assert load_run(RUN_ID).run_id == RUN_ID


def test_empty_variable_counts_as_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", "")
    monkeypatch.setenv("SPD_OUT_DIR", str(tmp_path / "theirs"))
    folder = touch(tmp_path / "theirs" / "runs" / f"spd-{RUN_ID}", "final_config.yaml", "model_3.pth")
    assert locate_run(RUN_ID).checkpoint.parent == folder
