"""Which harvest and which result a command line means, and how it is named in the commands that are printed."""

import shlex

import pytest

from lit_attr.cli.find_result import as_argument, find_harvest, find_result, next_commands
from lit_attr.errors import ConfigurationError, RunNotFoundError
from tests.parts.harvests import begin
from tests.storage.examples import random_storage

RUN = "s-1234abcd"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(tmp_path / "out"))
    return tmp_path / "out" / "dataset_attributions" / RUN


def stored(folder):
    random_storage().save(folder / "dataset_attributions.pt")
    return folder / "dataset_attributions.pt"


def test_a_result_is_named_by_its_run_where_that_finds_it(root):
    older = stored(root / "da-20250101_000000")
    assert as_argument(older) == RUN
    newer = stored(root / "da-20250101_000001")
    assert as_argument(newer) == RUN
    assert as_argument(older) == str(older)
    assert next_commands(newer) == f"ask it with: lit-attr query {RUN} sources KEY\nview it with: lit-attr view {RUN}"


def test_a_harvest_is_named_by_its_run_where_that_finds_it(root):
    begin(root / "da-20250101_000000", 1)
    assert as_argument(root / "da-20250101_000000") == RUN
    assert find_harvest(RUN, None) == root / "da-20250101_000000"


def test_paths_are_quoted_for_the_shell(tmp_path, root):
    elsewhere = stored(tmp_path / "it's a root" / "dataset_attributions" / RUN / "da-20250101_000000")
    for place in (elsewhere, elsewhere.parent):
        assert shlex.split(as_argument(place)) == [str(place)]
    for line in next_commands(elsewhere).splitlines():
        assert shlex.split(line.partition(": ")[2])[2] == str(elsewhere)
    partial = elsewhere.with_name("dataset_attributions.partial.pt")
    assert shlex.split(as_argument(partial)) == [str(partial)]


def test_a_harvest_that_is_not_finished(tmp_path, monkeypatch):
    folder = tmp_path / "a root" / "dataset_attributions" / RUN / "da-20250101_000000"
    begin(folder, 1)
    with pytest.raises(RunNotFoundError) as refusal:
        find_result(RUN, str(tmp_path / "a root"))
    assert str(refusal.value).endswith(f"see lit-attr status '{folder}'")


def test_nothing(root):
    with pytest.raises(RunNotFoundError, match=f"no harvest of '{RUN}' in .*{RUN}"):
        find_harvest(RUN, None)
    with pytest.raises(RunNotFoundError, match=f"no harvest da-1 of '{RUN}': there is no .*da-1"):
        find_harvest(RUN, None, "da-1")


def test_a_place_of_another_harvest_is_refused(root):
    result = stored(root / "da-1")
    for place in (result, result.parent):
        assert find_result(str(place), None, "da-1") == result
        with pytest.raises(ConfigurationError, match="is not of the harvest da-2: give a run id with --subrun_id"):
            find_result(str(place), None, "da-2")
    with pytest.raises(ConfigurationError, match="da-2"):
        find_harvest(str(result.parent), None, "da-2")
    with pytest.raises(RunNotFoundError, match="is a file, expected a run id, or the folder of a harvest"):
        find_harvest(str(result), None)
