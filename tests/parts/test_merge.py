import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.errors import NumericalError, StorageError
from lit_attr.files.seal import check_seal
from lit_attr.parts.ledger import read_ledger
from lit_attr.parts.merge import merge_harvest, write_merged
from lit_attr.parts.part import write_part
from lit_attr.query.attribution_repo import AttributionRepo
from lit_attr.query.explorer import Explorer
from lit_attr.storage import summed
from lit_attr.storage.compact import dense as dense_form
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.provenance import SCHEMA
from lit_attr.storage.result_form import ResultForm
from lit_attr.storage.verify import verify
from lit_attr.storage.write import write_result
from lit_attr.topology.words import COMPACT_FILE, HEADER_FILE, MERGED_FILE, READ_VECTORS_FILE
from tests.parts.faults import names_in
from tests.parts.harvests import PLAN, begin, commit, complete_harvest, header, sums_of
from tests.storage.examples import READ, TOPOLOGY, random_storage, random_sums, unembedding
from tests.sums import full_sums


def test_parts_of_older_generations_are_nobodys(tmp_path):
    old = begin(tmp_path, 4)
    new = begin(tmp_path, 2)
    commit(old, 3)
    for rank in range(2):
        commit(new, rank)
    assert merge_harvest(tmp_path).name == "dataset_attributions.pt"


def test_a_result_of_fewer_batches_replaces_none_of_more(tmp_path):
    """One who still writes it, while others extend the harvest."""
    fewer = complete_harvest(tmp_path, 1, 4)
    commit(begin(tmp_path, 1, 8), 0)
    result = merge_harvest(tmp_path).read_bytes()
    before = names_in(tmp_path)
    with pytest.raises(StorageError, match="was extended to 8 batches, the result of 4 is not written"):
        write_merged([fewer], header(), {"all": sums_of(range(4))}, np.arange(4), [])
    assert (tmp_path / MERGED_FILE).read_bytes() == result
    assert names_in(tmp_path) == before


def test_merge_is_the_float64_sum_rounded_once(tmp_path):
    generation = begin(tmp_path, 3)
    from lit_attr.parts.ledger import Ledger
    from lit_attr.parts.part import write_part

    parts = [random_sums(seed) for seed in range(3)]
    for rank, sums in enumerate(parts):
        ranges = [[rank, 9 - (9 - rank) % 3, 3]]
        write_part(generation.part_path(rank), sums, Ledger(PLAN.digest, 1, rank, 3, ranges, int(sums.n_tokens)))
    path = merge_harvest(tmp_path)
    storage = DatasetAttributionStorage.load(path)

    def added(find):
        return torch.from_numpy(np.sum([find(part).numpy() for part in parts], axis=0))

    for metric, blocks in (("attr", storage.regular_attr), ("attr_abs", storage.regular_attr_abs)):
        for target, source in (("0.mlp.up", "0.attn.q"), ("0.mlp.down", "0.mlp.up")):
            tables = [getattr(part, metric)[target][source].numbers.numpy() for part in parts]
            assert torch.equal(blocks[target][source], torch.from_numpy(np.sum(tables, axis=0)).T.float())
    assert torch.equal(storage.embed_attr["0.mlp.up"], added(lambda p: p.attr["0.mlp.up"]["embed"].numbers).T.float())
    assert torch.equal(
        storage.embed_attr_abs["0.attn.q"], added(lambda p: p.attr_abs["0.attn.q"]["embed"].numbers).T.float()
    )
    assert torch.equal(storage.embed_unembed_attr, added(lambda p: p.attr["output"]["embed"].numbers).T.float())
    assert torch.equal(storage.logit_sq_sum, added(lambda p: p.logit_sq).float())
    assert torch.equal(storage.embed_token_count, added(lambda p: p.token_count))
    assert storage.n_tokens_processed == sum(int(part.n_tokens) for part in parts)
    assert torch.equal(storage.w_unembed, unembedding())
    assert storage.ci_threshold == 0.25
    assert storage.provenance == {
        "schema": SCHEMA,
        "weights_digest": "w",
        "software": [],
        "metrics": "both",
        "generations": [
            {
                **{"generation": 1, "n_batches": 10, "world_size": 3},
                **{"created": None, "lit_attr_version": None, "engine": None},
            }
        ],
        "n_tokens": storage.n_tokens_processed,
        "coverage": {"n_batches": 10, "batches": [[0, 9, 1]], "complete": True},
    }


@pytest.mark.parametrize("tile", [1, 3, 7, 1 << 23])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("n_parts", [1, 3])
def test_file_is_what_the_storage_saves(tmp_path, monkeypatch, tile, dtype, n_parts):
    monkeypatch.setattr(summed, "TILE", tile)
    parts, whole = [sums_of([2 * i, 2 * i + 1]) for i in range(n_parts)], sums_of(range(2 * n_parts))
    w_unembed = unembedding().to(dtype).requires_grad_()
    write_result(tmp_path / "a.pt", dict(enumerate(parts)), READ, w_unembed, 0.5, {"x": [1]})
    check_seal(tmp_path / "a.pt")
    DatasetAttributionStorage.from_sums(whole, READ, w_unembed, 0.5, {"x": [1]}).save(tmp_path / "b.pt")
    for memory_mapped in (False, True):
        found, right = (torch.load(tmp_path / f"{n}.pt", weights_only=True, mmap=memory_mapped) for n in "ab")
        assert list(found) == list(right)
        assert_same(found, right)


@pytest.mark.parametrize("tile", [5, 1 << 23])
@pytest.mark.parametrize("name", ["attr/0.mlp.up->0.mlp.down", "attr_abs/embed->0.attn.q", "ci/0.mlp.up"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_by_part_and_tensor(tmp_path, monkeypatch, name, value, tile):
    """An older result stays, and nothing new is left behind."""
    monkeypatch.setattr(summed, "TILE", tile)
    generation = complete_harvest(tmp_path, 2)
    before = merge_harvest(tmp_path).read_bytes()
    names = names_in(tmp_path)
    ids = generation.assigned(1).tolist()
    sums = sums_of(ids)
    dict(sums.named())[name].view(-1)[-1] = value
    path = generation.part_path(1)
    write_part(path, sums, replace(read_ledger(path)))
    layers = re.findall(r"0[.\w]+", name)
    key = "".join(f"[{layer}]" for layer in reversed(layers))
    with pytest.raises(NumericalError, match=rf"^{re.escape(str(path))}: \w+{re.escape(key)} has values that are not"):
        merge_harvest(tmp_path)
    assert (tmp_path / MERGED_FILE).read_bytes() == before
    assert names_in(tmp_path) == names


def test_what_float32_cannot_hold_is_refused(tmp_path):
    """Each part by itself fits, and infinities of opposite signs would cancel to NaN."""
    parts = {"one.pt": sums_of([0]), "other.pt": sums_of([1])}
    for part in parts.values():
        part.logit_sq[1] = 3e38
    with pytest.raises(NumericalError, match=r"^logit_sq_sum: the sum of one\.pt, other\.pt is too large for float32"):
        write_result(tmp_path / "a.pt", parts, READ, unembedding(), 0.0, {})
    with pytest.raises(NumericalError, match=r"^the model: w_unembed has values"):
        write_result(tmp_path / "a.pt", {"p": sums_of([0])}, READ, torch.full_like(unembedding(), torch.nan), 0.0, {})
    assert names_in(tmp_path) == set()


def test_tools_for_zip_files_find_no_fault(tmp_path):
    """With the seal behind the archive, too; of results, and of what parts share. A damaged result does show."""
    complete_harvest(tmp_path, 2)
    paths = [merge_harvest(tmp_path), tmp_path / HEADER_FILE, tmp_path / READ_VECTORS_FILE]
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            tensors = max(archive.infolist(), key=lambda record: record.file_size)
            assert tensors.CRC == zlib.crc32(archive.read(tensors)) != 0
        check_seal(path)
        for command in (["unzip", "-t"], [sys.executable, "-m", "zipfile", "-t"]):
            if shutil.which(command[0]):
                subprocess.run([*command, path], check=True, capture_output=True)
    content = bytearray(paths[0].read_bytes())
    content[content.index(b"PK\x07\x08", len(content) // 2) - 1] ^= 1
    (tmp_path / "damaged.pt").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "damaged.pt") as archive:
        assert archive.testzip() is not None


def test_writes_that_the_system_does_in_pieces(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:5], offset))
    write_result(tmp_path / "a.pt", {"part": sums_of([0])}, READ, unembedding(), 0.5, {})
    monkeypatch.undo()
    write_result(tmp_path / "b.pt", {"part": sums_of([0])}, READ, unembedding(), 0.5, {})
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def assert_same(found, right, name=""):
    if isinstance(right, dict):
        assert list(found) == list(right), name
        for key in right:
            assert_same(found[key], right[key], f"{name}/{key}")
    elif isinstance(right, torch.Tensor):
        assert (found.dtype, found.shape, found.is_contiguous()) == (right.dtype, right.shape, True), name
        assert torch.equal(found, right), name
    else:
        assert found == right, name


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 3))
def test_merge_is_commutative_and_associative(tmp_path_factory, order, split):
    folder = tmp_path_factory.mktemp("merge")
    parts = [random_sums(seed) for seed in order]

    def merged(name, parts):
        write_result(folder / name, dict(enumerate(parts)), READ, unembedding(), 0.0, {})
        return DatasetAttributionStorage.load(folder / name)

    def added(parts):
        total = full_sums(TOPOLOGY, torch.float64)
        for part in parts:
            total.add_(part)
        return total

    right = merged("a", [random_sums(seed) for seed in range(4)])
    scale = dict(merged("abs", [absolute(random_sums(seed)) for seed in range(4)]).named_sums())
    for other in (merged("b", parts), merged("c", [added(parts[:split]), added(parts[split:])])):
        assert other.n_tokens_processed == right.n_tokens_processed
        for (name, one), (_, two) in zip(other.named_sums(), right.named_sums(), strict=True):
            assert ((one - two).abs() <= 1e-7 * scale[name]).all(), name


def absolute(sums):
    for _, tensor in sums.named():
        tensor.abs_()
    return sums


def test_partial_results_say_so(tmp_path):
    folder = tmp_path / "out" / "dataset_attributions" / "s-x" / "da-1"
    generation = begin(folder, 3)
    commit(generation, 0, [0, 3])
    commit(generation, 1)
    with pytest.raises(StorageError) as refused:
        merge_harvest(folder)
    assert "of 10 batches 5 (2-5 step 3, 6-8 step 2, 9) are missing" in str(refused.value)
    assert "no file dataset_attributions_rank_2.pt. Let" in str(refused.value)
    path = merge_harvest(folder, allow_partial=True)
    assert path == folder / "dataset_attributions.partial.pt"
    assert AttributionRepo.open("s-x") is None
    storage = DatasetAttributionStorage.load(path)
    right = DatasetAttributionStorage.from_sums(sums_of([0, 3, 1, 4, 7]), READ, unembedding(), 0.0)
    for (name, found), (_, value) in zip(storage.named_sums(), right.named_sums(), strict=True):
        assert torch.equal(found, value.to(found.dtype)), name
    assert storage.provenance["coverage"] == {
        "n_batches": 10,
        "batches": [[0, 1, 1], [3, 4, 1], [7, 7, 1]],
        "complete": False,
    }
    assert storage.provenance["n_tokens"] == storage.n_tokens_processed == sum(2**i for i in (0, 1, 3, 4, 7))
    assert "coverage: PARTIAL, of 10 batches 5 (2-5 step 3, 6-8 step 2, 9) are missing" in verify(path)
    for rank in range(3):
        commit(generation, rank)
    assert merge_harvest(folder, allow_partial=True).name == "dataset_attributions.pt", "complete now"
    assert AttributionRepo.open("s-x").path == folder / "dataset_attributions.pt"


def test_nothing_committed(tmp_path):
    begin(tmp_path, 2)
    with pytest.raises(StorageError, match=r"10 \(0-9\) are missing; no file .*rank_0\.pt, .*rank_1\.pt\. Let"):
        merge_harvest(tmp_path)
    with pytest.raises(StorageError, match="no worker has committed anything yet"):
        merge_harvest(tmp_path, allow_partial=True)


def test_not_begun(tmp_path):
    complete_harvest(tmp_path)
    for name in (READ_VECTORS_FILE, HEADER_FILE):
        (tmp_path / name).unlink()
        with pytest.raises(StorageError, match=rf"cannot read .*{re.escape(name)}"):
            merge_harvest(tmp_path)
    (tmp_path / "generation_1.json").unlink()
    with pytest.raises(StorageError, match="the harvest has not begun"):
        merge_harvest(tmp_path)


def test_merging_again_replaces_the_result(tmp_path):
    complete_harvest(tmp_path)
    first = merge_harvest(tmp_path).read_bytes()
    assert merge_harvest(tmp_path).read_bytes() == first
    assert names_in(tmp_path) == {
        *["plan.json", "generation_1.json", "harvest.pt", "read_vectors.pt", "worker_states"],
        "dataset_attributions.pt",
    }


def test_harvests_merged_as_files_keep_their_coverage(tmp_path):
    """The batches of the second are numbered after those of the first; nothing partial is forgotten."""
    covered = {
        "whole": {"n_batches": 4, "batches": [[0, 3, 1]], "complete": True},
        "part": {"n_batches": 3, "batches": [[0, 2, 2]], "complete": False},
        "unknown": None,
    }
    for seed, (name, known) in enumerate(covered.items()):
        random_storage(seed, provenance={"coverage": known} if known else {}).save(tmp_path / f"{name}.pt")
    random_storage(5, provenance={"coverage": covered["whole"]}).save(tmp_path / "other.pt")

    def merged(*names):
        return DatasetAttributionStorage.merge([tmp_path / f"{n}.pt" for n in names]).provenance.get("coverage")

    assert merged("whole", "other") == {"n_batches": 8, "batches": [[0, 3, 1], [4, 7, 1]], "complete": True}
    assert merged("whole", "part") == {"n_batches": 7, "batches": [[0, 3, 1], [4, 6, 2]], "complete": False}
    assert merged("unknown", "part") == covered["part"]
    assert merged("unknown", "whole") is None


@pytest.mark.slow
def test_memory_does_not_grow_with_the_parts(tmp_path):
    """Parts of 1.6 GB in all, their sum of 0.4 GB, with 1 GB of anonymous memory for all of Python and torch."""
    script = Path(__file__).parents[2] / "benchmarks" / "merge.py"
    command = [sys.executable, script, "--parts", "4", "--mb", "400", "--folder", tmp_path, "--rounds", "1"]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert result["bytes"] > 1.55e9
    assert result["peak_anonymous_mb"] < 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are the system's own")
def test_parts_larger_than_the_memory(tmp_path):
    """One that is allowed less than a part holds, its mappings included where they count as memory."""
    script = f"""
import resource, sys
from pathlib import Path
from benchmarks.merge import make_harvest
from lit_attr.parts.merge import merge_harvest, write_merged
folder = Path({str(tmp_path)!r}) / "x"
make_harvest(folder, 2, 1000)
used = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + (700 << 20),) * 2)
print(merge_harvest(folder).name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "dataset_attributions.pt\n"
    shutil.rmtree(tmp_path / "x")


@pytest.mark.parametrize("dense", ["auto", "always", "never"])
def test_the_form_that_is_asked_for(tmp_path, dense):
    complete_harvest(tmp_path, 2)
    path = merge_harvest(tmp_path, ResultForm(dense))
    assert path.name == (COMPACT_FILE if dense == "never" else MERGED_FILE)
    assert any(line.startswith("finite") for line in verify(path))
    found, right = (
        DatasetAttributionStorage.load(path),
        DatasetAttributionStorage.from_sums(sums_of(range(10)), READ, unembedding(), 0.25),
    )
    assert (found.live is None) == (dense != "never")
    for (name, one), (_, two) in zip(dense_form(found).named_sums(), right.named_sums(), strict=True):
        assert torch.equal(one, two.to(one.dtype)), name


def test_the_strongest_edges_alone(tmp_path):
    """They are those of the whole result, which is never there."""
    complete_harvest(tmp_path, 2)
    kept = Explorer(merge_harvest(tmp_path, ResultForm(keep=2)))
    assert not [name for name in names_in(tmp_path) if "compact" in name or name.startswith(".")]
    whole = Explorer(merge_harvest(tmp_path))
    for key in ("0.mlp.up:1", "output:3"):
        found, right = (e.sources(key, k=2, layers=["0.*"]) for e in (kept, whole))
        assert found.entries == right.entries
    with pytest.raises(StorageError, match="all edges, and would be taken for the result"):
        merge_harvest(tmp_path, ResultForm(keep=2))
    (tmp_path / "worker_states" / "dataset_attributions_rank_1.pt").unlink()
    with pytest.raises(StorageError, match="strongest edges are kept of all batches, and some are missing: drop keep"):
        merge_harvest(tmp_path, ResultForm(keep=2), allow_partial=True)
