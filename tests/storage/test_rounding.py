"""Results whose sums of edges into components take two bytes: what is rounded, how far it is off, and who says so."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from lit_attr.errors import ConfigurationError, NumericalError, StorageError
from lit_attr.export.description import describe
from lit_attr.export.form import export_form
from lit_attr.export.tensors import named_tensors
from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.strongest_build import write_strongest
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.compact import dense
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.file_content import file_keys
from lit_attr.storage.result_form import result_nbytes
from lit_attr.storage.rounding import ROUNDED_KEYS, Rounding
from lit_attr.storage.verify import verify
from lit_attr.storage.write import write_result
from tests.storage.examples import READ, TOPOLOGY, random_sums, unembedding
from tests.storage.test_compact import same

load = DatasetAttributionStorage.load


def write(path, dtype="bfloat16", sums=None):
    parts = {"part": random_sums() if sums is None else sums}
    write_result(path, parts, READ, unembedding(), 0.0, {"not_targets": {}}, is_dense=False, dtype=dtype)
    return load(path)


def exact_bfloat16(number):
    """The nearest number of eight binary digits, and of two equally near ones the one whose last digit is 0."""
    exact = Fraction(number)
    step = Fraction(2) ** (torch.tensor(number).frexp().exponent.item() - 8)
    return exact if exact == 0 else round(exact / step) * step


@pytest.fixture
def pair(tmp_path):
    """The same sums in four bytes and in two."""
    return write(tmp_path / "a.compact.pt", "float32"), write(tmp_path / "b.compact.pt")


def test_numbers_are_the_nearest_and_the_error_is_their_largest(pair):
    exact, rounded = pair
    assert exact.rounding is None
    largest = Fraction(0)
    for (name, one), (_, other) in zip(exact.named_sums(), rounded.named_sums(), strict=True):
        if not name.startswith(ROUNDED_KEYS):
            assert other.dtype == one.dtype
            assert torch.equal(one, other), name
            continue
        assert other.dtype == torch.bfloat16
        for number, found in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True):
            assert Fraction(found) == exact_bfloat16(number)
            largest = max(largest, abs(Fraction(found) / Fraction(number) - 1))
    stored = Fraction(float(rounded.rounding.relative_error))
    assert largest <= stored <= largest * (1 + Fraction(1, 1 << 22))
    nbytes = sum(tensor.nbytes for _, tensor in rounded.named_sums()) + rounded.w_unembed.nbytes
    sides = ({layer: len(ids) for layer, ids in side.items()} for side in vars(rounded.live).values())
    assert result_nbytes(TOPOLOGY, "both", *sides, "bfloat16") == nbytes


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], 0.0),
        ([0.0, 1.0, -2.0], 0.0),
        ([1.00390625, 4.0], 1 / 257),  # halfway between two numbers, of which the even one is taken
        ([1e-45, 1.0], 1.0),  # below the least number of bfloat16
    ],
)
def test_errors_that_are_known(numbers, expected):
    rounding = Rounding.begin()
    rounding.rounded(torch.tensor(numbers))
    assert expected <= float(rounding.relative_error) <= min(expected * (1 + 2**-22), 1)
    rounding.rounded(torch.tensor([3.0]))
    assert float(rounding.relative_error) >= expected


def test_answers_are_those_of_the_widened_numbers(pair, tmp_path):
    """From the result, with an index, from the strongest edges alone, and from the dense form."""
    _, rounded = pair
    widened = {name: _wide(getattr(rounded, name)) for name in ROUNDED_KEYS}
    replace(rounded, **widened, rounding=None).save(tmp_path / "wide.pt")
    expected = Explorer(tmp_path / "wide.pt")
    build_index(tmp_path / "b.compact.pt")
    write_strongest(Blocks(rounded), tmp_path / "x.strongest", 64)
    export_form(rounded, tmp_path / "dense.pt", compact=False)
    explorers = [Explorer(tmp_path / name) for name in ("b.compact.pt", "x.strongest", "dense.pt")]
    assert explorers[0].is_indexed
    for explorer in explorers:
        assert str(explorer.storage.rounding) == str(rounded.rounding)
        for metric in ("attr", "attr_abs"):
            for key in ("0.mlp.up:1", "0.mlp.down:3", "0.attn.q:0"):
                assert explorer.sources(key, k=9, metric=metric) == expected.sources(key, k=9, metric=metric)
            for key in ("embed:3", "0.mlp.up:2"):
                assert explorer.targets(key, k=9, metric=metric) == expected.targets(key, k=9, metric=metric)
            assert explorer.edge("0.mlp.up:1", "0.mlp.down:3") == expected.edge("0.mlp.up:1", "0.mlp.down:3")
            assert explorer.matrix(metric=metric) == expected.matrix(metric=metric)
        assert explorer.sources("output:1", k=9) == expected.sources("output:1", k=9)


def _wide(value):
    return value.float() if isinstance(value, torch.Tensor) else {key: _wide(inner) for key, inner in value.items()}


def test_forms_can_be_changed(pair, tmp_path):
    exact, rounded = pair
    export_form(exact, tmp_path / "there.pt", compact=True, dtype="bfloat16")
    assert (tmp_path / "there.pt").read_bytes() == (tmp_path / "b.compact.pt").read_bytes()
    export_form(rounded, tmp_path / "dense.pt", compact=False)
    wide = load(tmp_path / "dense.pt")
    assert {tensor.dtype for _, tensor in wide.named_sums()} == {torch.float32, torch.int64}
    assert same(wide, dense(rounded))
    assert str(wide.rounding) == str(rounded.rounding)
    export_form(wide, tmp_path / "back.pt", compact=True, dtype="bfloat16")
    export_form(rounded, tmp_path / "again.pt", compact=True)
    rounded.save(tmp_path / "saved.pt")
    for name in ("back.pt", "again.pt", "saved.pt"):
        found = load(tmp_path / name)
        assert same(found, rounded)
        assert float(found.rounding.relative_error) == float(rounded.rounding.relative_error)
        assert {t.dtype for n, t in named_tensors(found) if n.startswith("embed_attr")} == {torch.bfloat16}
    dense(rounded).save(tmp_path / "dense saved.pt")
    assert load(tmp_path / "dense saved.pt").embed_attr["0.mlp.up"].dtype == torch.float32
    with pytest.raises(ConfigurationError, match="dtype bfloat16 is for the compact form"):
        export_form(exact, tmp_path / "no.pt", compact=False, dtype="bfloat16")


def test_who_says_so(pair, tmp_path):
    exact, rounded = pair
    said = str(rounded.rounding)
    assert said.startswith("edges into components were rounded to bfloat16, each by at most 0.3")
    assert f"rounding: {said}" in verify(tmp_path / "b.compact.pt")
    assert not any("rounding" in line for line in verify(tmp_path / "a.compact.pt"))
    export_form(rounded, tmp_path / "dense.pt", compact=False)
    assert f"rounding: {said}" in verify(tmp_path / "dense.pt")
    replace(exact, rounding=rounded.rounding).save(tmp_path / "false.pt")
    with pytest.raises(StorageError, match=r"false\.pt: expected numbers that were rounded .* in regular_attr\["):
        verify(tmp_path / "false.pt")
    assert describe(rounded, "x")["rounding"] == said
    with pytest.raises(StorageError, match=r"cannot merge .*b\.compact\.pt: edges into components were rounded"):
        DatasetAttributionStorage.merge([tmp_path / "a.compact.pt", tmp_path / "b.compact.pt"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "expected dtype and relative_error, found 3"),
        ({"dtype": "float16", "relative_error": torch.tensor(0.1)}, "expected dtype bfloat16, found 'float16'"),
        ({"dtype": "bfloat16", "relative_error": 0.1}, "expected a relative_error of 0 to 1, float32, found 0.1"),
        ({"dtype": "bfloat16", "relative_error": torch.tensor(torch.nan)}, "expected a relative_error of 0 to 1"),
        ({"dtype": "bfloat16", "relative_error": torch.zeros(2)}, "expected a relative_error of 0 to 1"),
    ],
)
def test_damaged(pair, tmp_path, entry, message):
    torch.save({**file_keys(pair[1]), "rounding": entry}, tmp_path / "x.pt")
    with pytest.raises(StorageError, match=rf"x\.pt.*rounding: {message}"):
        load(tmp_path / "x.pt")


def test_sums_that_are_too_large(tmp_path):
    sums = random_sums()
    sums.attr["0.mlp.up"]["embed"].numbers[0, 0] = 3.4e38  # float32 holds it, and bfloat16 does not
    write(tmp_path / "a.pt", "float32", sums)
    with pytest.raises(NumericalError, match=r"too large for float32 \(or bfloat16\)"):
        write(tmp_path / "b.pt", "bfloat16", sums)
    assert not (tmp_path / "b.pt").exists()
