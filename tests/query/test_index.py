"""An index that cannot be trusted is not used."""

import logging
import os
from dataclasses import replace

import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.query import index_build, layer_pairs
from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.index_file import INDEX_FORMAT, identity, index_path, open_index
from lit_attr.query.layer_pairs import summarise
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.file_content import file_keys
from lit_attr.storage.lists_file import Section
from tests.storage.examples import READ, TOPOLOGY, random_storage, random_sums, unembedding


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "dataset_attributions.pt"
    random_storage().save(path)
    build_index(path)
    return path


def answers(path):
    explorer = Explorer(path)
    return [explorer.targets("embed:0"), explorer.targets("0.mlp.up:1"), explorer.sources("output:2"), explorer.edges()]


def expected(path):
    index = index_path(path)
    index.rename(index.with_suffix(".away"))
    found = answers(path)
    index.with_suffix(".away").rename(index)
    return found


def close(found, others):
    for one, other in zip(found, others, strict=True):
        entries = [getattr(a, "entries", None) or a.edges for a in (one, other)]
        assert [e.value for e in entries[0]] == pytest.approx([e.value for e in entries[1]], rel=1e-5)


def warnings_of(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_good_index_is_used_and_says_nothing(path, caplog, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the storage was asked")

    from lit_attr.storage.key_edges import KeyEdges

    monkeypatch.setattr(KeyEdges, "targets", refuse)
    monkeypatch.setattr(KeyEdges, "sources", refuse)
    monkeypatch.setattr("lit_attr.query.layer_pairs.summarise", refuse)
    answers(path)
    assert Explorer(path).matrix().values
    assert not warnings_of(caplog)


def test_no_index(path, caplog):
    index_path(path).unlink()
    answers(path)
    assert not warnings_of(caplog)


def test_without_an_index_a_pair_is_looked_at_once_for_both_signs(path, monkeypatch):
    index_path(path).unlink()
    asked = []

    def counted(blocks, pair, metric, k):
        asked.append(pair)
        return summarise(blocks, pair, metric, k)

    monkeypatch.setattr(layer_pairs, "summarise", counted)
    edges = Explorer(path).edges(sign="both").edges
    assert {(edge.source.layer, edge.target.layer) for edge in edges} == set(asked)
    assert {edge.value > 0 for edge in edges} == {True, False}
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("sealed", [True, False])
def test_an_index_of_another_result(tmp_path, caplog, sealed):
    from lit_attr.storage.write import write_result

    path = tmp_path / "x.pt"

    def write(seed):
        if sealed:
            write_result(path, {"part": random_sums(seed)}, READ, unembedding(), 0.0, {})
        else:
            random_storage(seed).save(path)

    write(0)
    build_index(path)
    assert ("sha256" in identity(path)) == sealed
    close(answers(path), expected(path))
    assert not warnings_of(caplog)
    write(1)
    if not sealed:
        os.utime(path, ns=(1, 1))
    found = answers(path)
    assert "is of another result than the one that is now in" in caplog.text
    assert "not used for" in caplog.text
    close(found, expected(path))


def test_a_sealed_result_may_be_copied(tmp_path, caplog):
    from lit_attr.storage.write import write_result

    path = tmp_path / "x.pt"
    write_result(path, {"part": random_sums()}, READ, unembedding(), 0.0, {})
    build_index(path)
    os.utime(path, ns=(1, 1))
    answers(path)
    assert not warnings_of(caplog)


@pytest.mark.parametrize("damage", ["truncated", "empty", "tail", "foreign", "version"])
def test_a_damaged_index(path, caplog, damage):
    index = index_path(path)
    data = index.read_bytes()
    changed = {
        "truncated": data[:-1],
        "empty": b"",
        "tail": data[:-60] + b"x" + data[-59:],
        "foreign": b"no index at all, but long enough to be one",
        "version": data,
    }[damage]
    index.write_bytes(changed)
    if damage == "version":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lit_attr.query.index_file.INDEX_FORMAT", replace(INDEX_FORMAT, sections={2: Section}))
            found = answers(path)
        assert "has version 1, which this version of lit_attr does not know (it knows 2)" in caplog.text
    else:
        found = answers(path)
        assert str(index) in caplog.text
    close(found, expected(path))


def test_every_flipped_byte_is_noticed(path, caplog):
    """In a record, by its check sum; the other answers still come from the index."""
    index, right = index_path(path), expected(path)
    data = index.read_bytes()
    end = sum(section.nbytes for section in open_index(index).sections.values())
    for place in range(0, end, 97):
        index.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        caplog.clear()
        close(answers(path), right)
    index.write_bytes(bytes(byte ^ 16 for byte in data[:end]) + data[end:])
    close(answers(path), right)
    assert "is damaged: record 0 of targets/embed/components is not what was written" in caplog.text


def test_values_that_are_not_finite_are_not_indexed(tmp_path):
    for name in ("embed_attr", "unembed_attr"):
        storage = random_storage()
        block = next(iter(getattr(storage, name).values()))
        block[0, 0] = float("nan")
        storage.save(tmp_path / "x.pt")
        with pytest.raises(StorageError, match=r"no index of .*x\.pt: .*not finite"):
            build_index(tmp_path / "x.pt")
        assert not index_path(tmp_path / "x.pt").exists()


def test_other_precisions_are_not_indexed(tmp_path):
    random_storage().save(tmp_path / "x.pt")
    content = DatasetAttributionStorage.load(tmp_path / "x.pt")
    wide = {layer: values.double() for layer, values in content.ci_sum.items()}
    torch.save({**file_keys(content), "ci_sum": wide}, tmp_path / "wide.pt")
    with pytest.raises(StorageError, match=r"only sums in float32 can be indexed, .* ci_sum\[0.mlp.up\] is in float64"):
        build_index(tmp_path / "wide.pt")


def test_a_result_that_changes_meanwhile(path, monkeypatch):
    known = iter([{"size": 1}, {"size": 2}])
    monkeypatch.setattr(index_build, "identity", lambda path: next(known))
    with pytest.raises(StorageError, match="was changed while its index was built"):
        build_index(path)
    assert not index_path(path).exists()


def test_unembedding_of_another_precision(tmp_path):
    storage = random_storage()
    half = DatasetAttributionStorage(**{**vars(storage), "w_unembed": storage.w_unembed.bfloat16()})
    half.save(tmp_path / "x.pt")
    build_index(tmp_path / "x.pt")
    found = Explorer(tmp_path / "x.pt").sources("output:1", k=3)
    wanted = half.get_top_sources("output:1", 3)
    assert [e.component_key for e in found.entries] == [e.component_key for e in wanted]
    assert TOPOLOGY.vocab_size == 5
