"""Standard errors of a result in both forms, from workers and target shards, moved and merged."""

from dataclasses import replace

import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.export.form import export_form
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.storage.compact import dense, with_live
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.write import write_result
from lit_attr.topology.shards import deal
from lit_attr.topology.squares import N_BLOCKS
from lit_attr.topology.sums import Sums
from tests.storage.test_summed import ALIVE, TOPOLOGY, W_UNEMBED, random_part, read_vectors
from tests.sums import layout_of

READ = read_vectors(torch.float64)
LAYOUT = layout_of(TOPOLOGY, alive=ALIVE, squares_dtype=torch.float32)


def accumulated(groups, layout=LAYOUT):
    sums = AttributionSums(updates_per_flush=1)
    sums.allocate(layout, torch.float64, "cpu", {layer: READ.of_targets(layer) for layer in layout.squares})
    for group in groups:
        sums.update(lambda some, group=group: some.add_(group))
    return sums.totals


def of_shard(sums, layout):
    """What a target shard sums of a batch."""
    part = Sums.zeros(layout, torch.float64, live=sums.live, with_squares=False)
    whole = dict(sums.edges())
    for name, table in part.edges():
        metric, _, edge = name.partition("/")
        numbers, target = whole[name].numbers, edge.partition("->")[2]
        if metric == "attr_abs":
            numbers = numbers[:, torch.searchsorted(sums.layout.targets[target], layout.targets[target])]
        table.replace(numbers.clone())
    for (_, mine), (_, theirs) in zip(part.normalisers(), sums.normalisers(), strict=True):
        mine.copy_(theirs)
    return part


def written(path, parts, *, is_dense=True, **options):
    named = {f"part {number}": part for number, part in enumerate(parts)}
    write_result(path, named, READ, W_UNEMBED, 0.0, {}, is_dense=is_dense, **options)
    return DatasetAttributionStorage.load(path)


def tensors(errors):
    found = {}

    def walk(name, value):
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}[{key}]", inner)

    walk("", dict(vars(errors)))
    return found


def assert_same(one, two, tolerance=0.0):
    mine, theirs = tensors(one.standard_errors), tensors(two.standard_errors)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor.double(), theirs[name].double(), rtol=tolerance, atol=tolerance, msg=name)
    assert one.standard_errors.n_all_groups == two.standard_errors.n_all_groups


@pytest.fixture(scope="module")
def groups():
    parts = [random_part(8, 8 if number % 3 else 0) for number in range(20)]
    for part in parts:
        for ci in part.ci.values():
            ci.abs_()
    return parts


def test_both_forms_and_the_way_between_them(groups, tmp_path):
    parts = [accumulated(groups[:12]), accumulated(groups[12:])]
    one, other = (written(tmp_path / f"{form}.pt", parts, is_dense=form) for form in (True, False))
    assert_same(dense(other), one)
    assert_same(with_live(one, other.live), other)
    assert one.standard_errors.n_all_groups == {"attr": 20, "attr_abs": 13, "output": N_BLOCKS}
    assert float(one.standard_errors.regular_attr["0.attn.o"]["0.attn.q"].max()) > 0
    one.save(tmp_path / "again.pt")
    assert_same(DatasetAttributionStorage.load(tmp_path / "again.pt"), one)


def test_rounded_sums_have_the_same(groups, tmp_path):
    """They are bfloat16 always: rounding sums leaves them alone, and does not count them."""
    exact, rounded = (
        written(tmp_path / f"{dtype}.pt", [accumulated(groups)], is_dense=False, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    assert_same(rounded, exact)
    export_form(exact, tmp_path / "exported.pt", compact=True, dtype="bfloat16")
    assert (tmp_path / "exported.pt").read_bytes() == (tmp_path / "bfloat16.pt").read_bytes()
    sums = zip(rounded.named_sums(), exact.named_sums(), strict=True)
    pairs = [(one.double(), two.double()) for (_, one), (_, two) in sums if one.dtype == torch.bfloat16]
    largest = max(float(((one - two) / two)[two != 0].abs().max()) for one, two in pairs if two.any())
    assert float(rounded.rounding.relative_error) == pytest.approx(largest, rel=3e-7)


def test_groups_of_several_workers_are_those_of_one(groups, tmp_path):
    """But for the blocks: which groups are in one differs."""
    one = written(tmp_path / "one.pt", [accumulated(groups)])
    several = written(tmp_path / "several.pt", [accumulated(groups[::2]), accumulated(groups[1::2])])
    of_output = {name: getattr(one.standard_errors, name) for name in ("unembed_attr", "embed_unembed_attr")}
    same = {
        **of_output,
        "n_groups": {**several.standard_errors.n_groups, "output": one.standard_errors.n_groups["output"]},
    }
    assert_same(replace(several, standard_errors=replace(several.standard_errors, **same)), one, 5e-3)


def test_target_shards_have_those_of_the_whole(groups, tmp_path):
    whole = written(tmp_path / "whole.pt", [accumulated(groups)])
    shards = deal(LAYOUT, 2)
    assert [bool(shard.squares) for shard in shards] != [False, False]
    parts = [accumulated([of_shard(group, shard) for group in groups], shard) for shard in shards]
    assert_same(written(tmp_path / "shards.pt", parts, normalising=["part 0"]), whole, 5e-3)


def test_merged_results_have_none(groups, tmp_path):
    """They would need the squares, which are in the parts."""
    for name, some in (("a", groups[:10]), ("b", groups[10:])):
        written(tmp_path / f"{name}.pt", [accumulated(some)])
    merged = DatasetAttributionStorage.merge([tmp_path / "a.pt", tmp_path / "b.pt"])
    assert merged.standard_errors is None


def test_those_of_another_result_are_refused(groups, tmp_path):
    one = written(tmp_path / "one.pt", [accumulated(groups)])
    errors = one.standard_errors
    smaller = {**errors.unembed_attr, "0.attn.o": errors.unembed_attr["0.attn.o"][:-1]}
    with pytest.raises(
        StorageError, match=r"standard_errors: unembed_attr\[0.attn.o\]: expected \(5, 96\), found \(4, 96\)"
    ):
        replace(one, standard_errors=replace(errors, unembed_attr=smaller))
    with pytest.raises(StorageError, match=r"n_groups of attr_abs: expected \d float32 numbers of .*, found nothing"):
        replace(one, standard_errors=replace(errors, n_groups={"attr": errors.n_groups["attr"]}))
    torch.save({**torch.load(tmp_path / "one.pt"), "standard_errors": {"regular_attr": {}}}, tmp_path / "odd.pt")
    with pytest.raises(StorageError, match="standard_errors: expected"):
        DatasetAttributionStorage.load(tmp_path / "odd.pt")
