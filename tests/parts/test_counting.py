"""Which parts of a harvest count: every mistake in a single part is refused, by all who read parts."""

import shutil
from dataclasses import replace

import pytest

from lit_attr.errors import StorageError
from lit_attr.files.json_file import publish_json
from lit_attr.parts.counting import counting_parts
from lit_attr.parts.generations import begun_generation
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.plan import Plan
from lit_attr.plots.stability import stability
from lit_attr.storage.verify import verify
from tests.parts.harvests import begin, commit
from tests.storage.examples import TOPOLOGY
from tests.sums import layout_of


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def mutate(folder, generation, how):
    """One change of one part; the name in the message, and the batches."""
    one, other = generation.part_path(1), generation.part_path(2)
    if how == "missing":
        one.unlink()
    elif how == "twice":
        shutil.copy(other, one)
    elif how == "foreign":
        commit(generation, 1, plan=Plan({"weights": "v"}, 10).digest)
    elif how == "truncated":
        one.write_bytes(one.read_bytes()[:-200])
    elif how == "empty":
        one.write_bytes(b"")
    elif how == "flipped":
        flip(one)
    elif how == "seal flipped":
        flip(one, 0.9999)
    elif how == "of an older generation":
        commit(generation, 1, generation=generation.number - 1)
    elif how == "of another world size":
        commit(generation, 1, world_size=4)
    elif how == "beyond the world size":
        shutil.copy(one, generation.part_path(3))
        return generation.part_path(3).name
    elif how == "batches of another worker":
        commit(generation, 1, [*generation.assigned(1), *generation.assigned(2)[:1]])
    return one.name


MUTATIONS = [
    *["missing", "twice", "foreign", "truncated", "empty", "flipped", "seal flipped", "of an older generation"],
    *["of another world size", "beyond the world size", "batches of another worker"],
]


@pytest.mark.parametrize("generations", [1, 2])
@pytest.mark.parametrize("how", MUTATIONS)
def test_every_mutation_of_a_single_part_is_refused(tmp_path, how, generations):
    generation = begin(tmp_path, 2 if generations == 2 else 3)
    if generations == 2:
        commit(generation, 0, [0])
        generation = begin(tmp_path, 3)
    for rank in range(3):
        commit(generation, rank)
    name = mutate(tmp_path, generation, how)
    batches = "3 (1-7 step 3)" if generations == 1 else "3 (2-8 step 3)"
    for allow_partial in (False, True):
        if how == "missing" and allow_partial:
            continue
        with pytest.raises(StorageError) as refused:
            merge_harvest(tmp_path, allow_partial=allow_partial)
        assert name in str(refused.value)
        assert batches in str(refused.value)
        assert not list(tmp_path.glob("*attributions*.pt"))


@pytest.mark.parametrize("how", ["missing", "foreign", "other batches", "flipped"])
def test_every_mutation_of_a_frozen_part_is_refused(tmp_path, how):
    first = begin(tmp_path, 2)
    commit(first, 0, [0, 4])
    generation = begin(tmp_path, 1)
    commit(generation, 0)
    path = tmp_path / "worker_states" / generation.frozen[0][0]
    if how == "missing":
        path.unlink()
    elif how == "flipped":
        flip(path)
    else:
        source = commit(first, 0, [0, 4] if how == "foreign" else [0, 2], **({"plan": "x"} if how == "foreign" else {}))
        source.replace(path)
    with pytest.raises(StorageError) as refused:
        merge_harvest(tmp_path)
    assert path.name in str(refused.value)
    assert "2 (0-4 step 4)" in str(refused.value)
    if how == "missing":
        path = merge_harvest(tmp_path, allow_partial=True)
        assert path.name == "dataset_attributions.partial.pt"
        assert "of 10 batches 2 (0-4 step 4) are missing" in verify(path)[-1]
        return
    with pytest.raises(StorageError):
        merge_harvest(tmp_path, allow_partial=True)
    with pytest.raises(StorageError):
        list(counting_parts(begun_generation(tmp_path), layout_of(TOPOLOGY), only_frozen=True))
    with pytest.raises(StorageError) as refused:
        stability(tmp_path)
    assert path.name in str(refused.value)


def test_two_frozen_parts_with_the_same_batches(tmp_path):
    first = begin(tmp_path, 2)
    commit(first, 0, [0, 4])
    generation = begin(tmp_path, 1)
    ((name, ranges),) = generation.frozen
    again = replace(generation, number=3, frozen=[(name, ranges), ("frozen_generation_2_rank_0_0.pt", ranges)])
    shutil.copy(tmp_path / "worker_states" / name, tmp_path / "worker_states" / "frozen_generation_2_rank_0_0.pt")
    publish_json(again.path, {"world_size": 1, "n_batches": 10, "frozen": again.frozen}, replace=False)
    with pytest.raises(
        StorageError,
        match=rf"frozen_generation_2_rank_0_0\.pt and {name} in .* hold the same batches: 2 \(0-4 step 4\)",
    ):
        merge_harvest(tmp_path, allow_partial=True)
