"""All states of small harvests are visited; a protocol that is broken in any of many ways is found out."""

from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from lit_attr.harvest import commits
from lit_attr.parts import counting, freeze, generations, merge
from lit_attr.parts import union as shards
from lit_attr.parts.generations import Generation, newest_generation
from lit_attr.storage.batch_coverage import Coverage
from tests.protocol.counted import Violation
from tests.protocol.explore import Scenario, explore, explore_patched
from tests.protocol.files import ROOT
from tests.protocol.replay import on_model_files, take
from tests.protocol.scenarios import NO_LOCKS, SMALL

# A scenario in which several begin a generation without waiting for each other.
AT_ONCE = Scenario(SMALL["one, two and three at once"].processes, 1, NO_LOCKS)


@pytest.mark.parametrize(
    "name", [name if name == "more" else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_no_batch_is_lost_or_doubled_and_no_result_is_called_complete_that_is_not(name):
    report = explore(SMALL[name])
    assert report.n_states > 400
    assert report.n_results > 10
    assert any(end.endswith(": done") for end in report.ends)


def moved(patch):
    def keep(path, link):
        content = take("read", path)
        take("replace", link, content)
        take("unlink", path)

    patch.setattr(freeze, "keep", keep)


def dropped(patch):
    patch.setattr(freeze, "_freeze", lambda generation: list(generation.frozen))


def replaced(patch):
    publish = freeze.publish_json
    patch.setattr(freeze, "publish_json", lambda path, content, replace: publish(path, content, replace=True))


def read_before_they_are_linked(patch):
    keep, read, ledgers = freeze.keep, freeze.read_ledger, {}

    def read_and_keep(path, link):
        before = read(path) if path.exists() else None
        keep(path, link)
        ledgers[link] = before or read(path)

    patch.setattr(freeze, "keep", read_and_keep)
    patch.setattr(freeze, "read_ledger", ledgers.__getitem__)


def removed_before_they_count(patch):
    publish = freeze.publish_json

    def remove_and_publish(path, content, *, replace):
        for part in (ROOT / "worker_states").glob("dataset_attributions_rank_*"):
            part.unlink()
        publish(path, content, replace=replace)

    patch.setattr(freeze, "publish_json", remove_and_publish)


def lost_the_race_and_goes_on(patch):
    publish = freeze.publish_json

    def publish_or_not(*args, **options):
        with suppress(FileExistsError):
            publish(*args, **options)

    patch.setattr(freeze, "publish_json", publish_or_not)


def looks_again_after_it_has_begun_one(patch):
    begin_after = freeze._begin_after
    patch.setattr(freeze, "_begin_after", lambda *args: begin_after(*args) and None)


def finds_the_winner_in_a_list(patch):
    patch.setattr(freeze, "read_generation", lambda folder, plan, *_: newest_generation(folder, plan))


def takes_a_failure_for_nothing_written(patch):
    patch.setattr(freeze, "FileIdentity", SimpleNamespace(of=lambda _: None))


class Any:
    """Equal to everything."""

    def __eq__(self, other):
        return True

    __hash__ = None


def commits_in_any_generation(patch):
    patch.setattr(commits, "newest_generation", lambda *_: SimpleNamespace(number=Any()))


def commits_over_any_part(patch):
    of = commits.FileIdentity.of
    patch.setattr(commits, "FileIdentity", SimpleNamespace(of=lambda path: None if of(path) is None else Any()))


def restores_what_it_did_not_note(patch):
    patch.setattr(commits, "np", SimpleNamespace(array=np.array, int64=np.int64, array_equal=lambda *_: True))


def one_name_in_all_generations(patch):
    patch.setattr(
        Generation, "part_path", lambda self, rank: self.folder / f"worker_states/dataset_attributions_rank_{rank}.pt"
    )


def deals_out_what_is_frozen(patch):
    patch.setattr(Generation, "_dealt_out", property(lambda self: np.arange(self.n_batches)))


def merges_ledger_and_sums_of_two_files(patch):
    read_part, read_ledger = counting.read_part, counting.read_ledger
    patch.setattr(counting, "read_part", lambda path, *what: (read_part(path, *what)[0], read_ledger(path)))


def misses_nothing(patch):
    patch.setattr(shards, "check_nothing_missing", lambda *_: None)


def always_complete(patch):
    patch.setattr(merge, "Coverage", SimpleNamespace(of=lambda _, n: Coverage.of(np.arange(n), n)))


def merges_what_is_not_there(patch):
    def expected(generation, *, only_frozen=False):
        for path, rank, batches in real(generation, only_frozen=only_frozen):
            yield path, rank, batches
            if rank is not None and generation.number > 1:
                yield generation.folder / f"worker_states/dataset_attributions_rank_{rank}.pt", rank, batches

    real = counting._expected
    patch.setattr(counting, "_expected", expected)


def one_place_for_all_shards(patch):
    patch.setattr(generations, "shard_folder", lambda folder, *_: folder)


def unites_shards_of_other_batches(patch):
    for check in ("_check_same_batches", "_check_same_data"):
        patch.setattr(shards, check, lambda *_: None)


def passes_over_a_shard_that_has_not_begun(patch):
    begun = merge.begun_generations
    patch.setattr(merge, "begun_generations", lambda folder: [one for one in begun(folder) if one is not None])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "scenario", "words"),
    [
        (moved, SMALL["more"], "no longer counts"),
        (dropped, SMALL["more"], "is not frozen"),
        (replaced, AT_ONCE, "is a foreign part: expected world size"),
        (read_before_they_are_linked, SMALL["more"], "is frozen with"),
        (removed_before_they_count, SMALL["more"], "no longer counts"),
        (lost_the_race_and_goes_on, AT_ONCE, "is a foreign part: expected world size"),
        (finds_the_winner_in_a_list, SMALL["more, with stale lists"], "a restart by 1 ends with [1]"),
        (takes_a_failure_for_nothing_written, SMALL["more, on a full disk"], "a restart by 1 ends with [1]"),
        (looks_again_after_it_has_begun_one, SMALL["one, two and three at once"], "begin one after another for ever"),
        (commits_in_any_generation, SMALL["more"], "a worker of generation 1 commits in generation 2"),
        (commits_over_any_part, SMALL["as many again"], "is replaced, though it is not what the worker knows"),
        (restores_what_it_did_not_note, SMALL["a deleted part of two workers"], "the numbers are of"),
        (one_name_in_all_generations, SMALL["more"], "a restart by 2 ends with []"),
        (deals_out_what_is_frozen, SMALL["more"], "holds batches that count already"),
        (merges_ledger_and_sums_of_two_files, SMALL["merging some meanwhile"], "and holds the numbers of"),
        (misses_nothing, SMALL["more"], "merging ends with None"),
        (always_complete, SMALL["more"], "and holds the numbers of"),
        (merges_what_is_not_there, SMALL["more"], "is a foreign part: expected generation 2, found 1"),
        (one_place_for_all_shards, SMALL["two shards"], "a worker of generation 1 commits in generation 0"),
        (unites_shards_of_other_batches, SMALL["two shards, more batches"], "has the numbers of 1 target shards"),
        (passes_over_a_shard_that_has_not_begun, SMALL["two shards"], "has the numbers of 1 target shards"),
    ],
)
def test_a_broken_protocol_is_found_out(broken, scenario, words):
    with on_model_files(scenario.behaviour, scenario.n_shards) as patch:
        broken(patch)
        with pytest.raises(Violation) as found:
            explore_patched(scenario)
    assert words in str(found.value)
