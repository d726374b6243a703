import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lit_attr.cli.find_result import find_result
from lit_attr.cli.open_result import name_of, open_result
from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.files.roots import output_root
from lit_attr.query.attribution_repo import AttributionRepo
from lit_attr.storage.result_folders import (
    Place,
    create_subrun,
    results,
    run_folder,
    run_of_harvest,
    subrun_folder,
    subruns,
)
from tests.storage.examples import random_storage

RUN = "s-1234abcd"


def store(out_dir, subrun, seed=0):
    random_storage(seed).save(run_folder(RUN, out_dir) / subrun / "dataset_attributions.pt")


def test_newest_with_a_merged_file(tmp_path):
    store(tmp_path, "da-20250101_000000", 0)
    store(tmp_path, "da-20250102_000000", 1)
    (run_folder(RUN, tmp_path) / "da-20250103_000000" / "worker_states").mkdir(parents=True)
    (run_folder(RUN, tmp_path) / "zz-other").mkdir()
    repo = AttributionRepo.open(RUN, tmp_path)
    assert (repo.subrun_id, repo.run_id) == ("da-20250102_000000", RUN)
    assert repo.get_attributions().n_tokens_processed == random_storage(1).n_tokens_processed


def test_newest_is_what_was_written_last(tmp_path):
    """Whatever a name says: clocks are put back in autumn, and a harvest may be extended."""
    for subrun in ("da-20251026_023000", "da-20251026_020500", "da-named"):
        store(tmp_path, subrun)
    folder = run_folder(RUN, tmp_path)
    written = {"da-20251026_023000": 100, "da-20251026_020500": 200, "da-named": 200}
    for subrun, seconds in written.items():
        os.utime(folder / subrun / "dataset_attributions.pt", (seconds, seconds))
    order = ["da-named", "da-20251026_020500", "da-20251026_023000"]
    assert [path.name for path in subruns(RUN, tmp_path)] == order
    assert [path.parent.name for path in results(RUN, tmp_path)] == order
    part = folder / "da-20251026_023000" / "worker_states" / "dataset_attributions_rank_0.pt"
    part.parent.mkdir()
    part.touch()
    (folder / "da-running").mkdir()
    (folder / "da-running" / "plan.json").touch()
    os.utime(part, (300, 300))
    os.utime(folder / "da-running" / "plan.json", (150, 150))
    (folder / "da-named" / "dataset_attributions.index").touch()
    assert [path.name for path in subruns(RUN, tmp_path)] == [order[2], *order[:2], "da-running"]
    assert [path.parent.name for path in results(RUN, tmp_path)] == order, "a result that is being extended is no newer"


def test_results_are_found_in_both_layouts(tmp_path):
    store(tmp_path, "da-20250101_000000", 0)
    theirs = run_folder(RUN, tmp_path, "param_decomp")
    assert theirs == tmp_path / "runs" / RUN / "dataset_attributions"
    random_storage(1).save(theirs / "da-20250102_000000" / "dataset_attributions.pt")
    newest = AttributionRepo.latest(RUN, tmp_path)
    assert newest.path == theirs / "da-20250102_000000" / "dataset_attributions.pt"
    assert len(results(RUN, tmp_path)) == 2
    for path in results(RUN, tmp_path):
        assert run_of_harvest(path.parent) == (RUN, tmp_path)
        assert subrun_folder(RUN, path.parent.name, tmp_path) == path.parent
        assert find_result(RUN, str(tmp_path), path.parent.name) == path
    assert name_of(open_result(RUN, str(tmp_path)), RUN, None).newest_of == 2
    assert subrun_folder(RUN, "da-new", tmp_path, "param_decomp") == theirs / "da-new"
    assert create_subrun(RUN, tmp_path, "param_decomp").parent == theirs
    with pytest.raises(ConfigurationError, match=r"writer.layout must be one of \['spd', 'param_decomp'\], found 'x'"):
        Place(tmp_path, None, "x")


def test_no_data(tmp_path):
    assert AttributionRepo.open(RUN, tmp_path) is None
    create_subrun(RUN, tmp_path)
    assert AttributionRepo.open(RUN, tmp_path) is None


def test_root_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(tmp_path / "ours"))
    store(None, "da-20250101_000000")
    assert (tmp_path / "ours" / "dataset_attributions" / RUN / "da-20250101_000000").is_dir()
    assert AttributionRepo.open(RUN).subrun_id == "da-20250101_000000"


def test_precedence_of_roots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIT_ATTR_OUT_DIR")
    assert output_root() == tmp_path / "out"
    monkeypatch.setenv("SPD_OUT_DIR", str(tmp_path / "theirs"))
    assert output_root() == tmp_path / "theirs"
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", "ours")
    assert output_root() == tmp_path / "ours"
    assert output_root("given") == tmp_path / "given"
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", "")
    assert output_root() == tmp_path / "theirs"


def test_home_is_expanded():
    assert output_root("~/x") == Path.home() / "x"


def test_subruns_are_named_after_the_time_and_never_shared(tmp_path):
    before = datetime.now(UTC).strftime("da-%Y%m%d_%H%M%S")
    folders = [create_subrun(RUN, tmp_path) for _ in range(5)]
    assert len(set(folders)) == 5
    assert folders == sorted(folders)
    assert folders[0].name >= before
    assert all(re.fullmatch(r"da-\d{8}_\d{6}(_\d\d)?", folder.name) for folder in folders)


def test_subrun_below_a_file(tmp_path):
    (tmp_path / "dataset_attributions").write_text("in the way")
    with pytest.raises(StorageError, match="cannot create the folder"):
        create_subrun(RUN, tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../../x", "/etc", "a/b", "a\0b", "x" * 256, "\udcff" * 200])
def test_ids_that_lead_elsewhere_become_no_paths(tmp_path, name):
    for use in (run_folder, subruns, results, create_subrun, AttributionRepo.open):
        with pytest.raises(StorageError, match="is no run's id: expected the name of a folder"):
            use(name, tmp_path)
    for subrun in (name, f"da-{name}", f"da-x/{name}", f"{name}/da-x"):
        with pytest.raises(StorageError, match="is no harvest's id"):
            subrun_folder(RUN, subrun if subrun not in ("da-.", "da-..") else "da-x/..", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_root_with_a_zero_byte():
    with pytest.raises(ConfigurationError, match="out_dir is no path: it has a zero byte"):
        run_folder(RUN, "a\0b")
