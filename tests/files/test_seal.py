import json
import os
import stat

import pytest
import safetensors.torch
import torch

from lit_attr.errors import StorageError
from lit_attr.files.identity import FileIdentity
from lit_attr.files.seal import check_seal, publish_sealed, trailer
from lit_attr.parts.header import Header
from lit_attr.parts.ledger import Ledger, read_ledger
from lit_attr.parts.part import read_part, write_part
from lit_attr.topology.words import HEADER_FILE
from tests.parts.harvests import header, sums_of
from tests.storage.examples import TOPOLOGY, random_sums, unembedding
from tests.sums import layout_of


def write_small_part(path):
    write_part(path, sums_of([1]), Ledger("plan", 1, 0, 1, [[1, 1, 1]], 2))


def write_small_header(path):
    header().publish(path.parent)
    (path.parent / HEADER_FILE).rename(path)


@pytest.mark.parametrize("write", [write_small_part, write_small_header])
def test_every_flipped_byte_and_every_truncation_shows(write, tmp_path):
    path = tmp_path / "a.pt"
    write(path)
    digest = check_seal(path)
    content = path.read_bytes()
    assert content.endswith(trailer(digest))
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(content):
            os.pwrite(file.fileno(), bytes([byte ^ (1 << place % 8)]), place)
            with pytest.raises(StorageError, match=r"a\.pt (is damaged|does not end in a seal)"):
                check_seal(path)
            os.pwrite(file.fileno(), bytes([byte]), place)
        assert check_seal(path) == digest
        for length in range(len(content) - 1, -1, -1):
            file.truncate(length)
            with pytest.raises(StorageError, match=r"a\.pt does not end in a seal: it is truncated"):
                check_seal(path)


def test_bytes_added_or_doubled_show(tmp_path):
    path = tmp_path / "a.pt"
    write_small_part(path)
    content = path.read_bytes()
    for changed in (content + b"\n", content[-82:] + content, content + content[-82:], content[:100] + content[99:]):
        path.write_bytes(changed)
        with pytest.raises(StorageError):
            check_seal(path)


def test_readers_do_not_notice_a_seal(tmp_path):
    publish_sealed(tmp_path / "a.pt", lambda file: torch.save({"x": torch.arange(3)}, file), 24)
    for memory_mapped in (False, True):
        loaded = torch.load(tmp_path / "a.pt", weights_only=True, mmap=memory_mapped)
        assert loaded["x"].tolist() == [0, 1, 2]


def test_large_files_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_attr.files.seal._CHUNK", 7)
    write_small_part(tmp_path / "a.pt")
    check_seal(tmp_path / "a.pt")


def test_missing_and_unreadable_files(tmp_path, monkeypatch):
    for read in (check_seal, read_ledger, lambda path: read_part(path, layout_of(TOPOLOGY))):
        with pytest.raises(StorageError, match=r"cannot read .*/a\.pt: .*No such file"):
            read(tmp_path / "a.pt")
        with pytest.raises(StorageError, match=r"cannot read .*: .*Is a directory"):
            read(tmp_path)
    write_small_part(tmp_path / "a.pt")

    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(StorageError, match=r"cannot read .*/a\.pt: .*Input/output error"):
        check_seal(tmp_path / "a.pt")


def test_part_comes_back(tmp_path):
    right = counted(random_sums(3), 99)
    ledger = Ledger("plan", 3, 1, 4, [(1, 9, 4)], 99, 1.5, 2.5, 7)
    write_part(tmp_path / "a.pt", right, ledger)
    sums, found = read_part(tmp_path / "a.pt", layout_of(TOPOLOGY))
    assert found == read_ledger(tmp_path / "a.pt") == ledger
    assert found.ids.tolist() == [1, 5, 9]
    for (name, tensor), (_, expected) in zip(sums.named(), right.named(), strict=True):
        assert torch.equal(tensor, expected), name
        assert tensor.dtype == expected.dtype


def counted(sums, n_tokens):
    """The same sums, of so many tokens, all of them token 0."""
    sums.n_tokens.fill_(n_tokens)
    sums.token_count.zero_()[0] = n_tokens
    return sums


@pytest.mark.parametrize(("in_ledger", "in_sums", "one_by_one"), [(8, 9, 9), (9, 8, 9), (9, 9, 8)])
def test_part_that_miscounts_its_tokens(tmp_path, in_ledger, in_sums, one_by_one):
    sums = counted(random_sums(3), one_by_one)
    sums.n_tokens.fill_(in_sums)
    write_part(tmp_path / "a.pt", sums, Ledger("plan", 1, 0, 1, [[0, 0, 1]], in_ledger))
    with pytest.raises(
        StorageError, match=f"ledger has {in_ledger} tokens, its sums {in_sums}, and one by one {one_by_one}"
    ):
        read_part(tmp_path / "a.pt", layout_of(TOPOLOGY))


@pytest.mark.parametrize("n_abs_tokens", [-1, 10])
def test_part_that_miscounts_the_tokens_of_attr_abs(tmp_path, n_abs_tokens):
    sums = counted(random_sums(3), 9)
    sums.n_abs_tokens.fill_(n_abs_tokens)
    write_part(tmp_path / "a.pt", sums, Ledger("plan", 1, 0, 1, [[0, 0, 1]], 9))
    with pytest.raises(StorageError, match=rf"a\.pt: its sums of attr_abs are of {n_abs_tokens} of its 9 tokens"):
        read_part(tmp_path / "a.pt", layout_of(TOPOLOGY))


def test_part_stays_whole_while_its_worker_publishes_another(tmp_path, monkeypatch):
    """The ledger and the sums are of one file, whichever it is."""
    from lit_attr.parts import part as parts

    path, real = tmp_path / "a.pt", parts.read_head
    write_small_part(path)

    def replaced_meanwhile(*opened):
        write_part(path, sums_of([2, 3]), Ledger("plan", 1, 0, 1, [[2, 3, 1]], 12))
        return real(*opened)

    monkeypatch.setattr(parts, "read_head", replaced_meanwhile)
    sums, ledger = read_part(path, layout_of(TOPOLOGY))
    assert ledger.ids.tolist() == [1]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(sums.named(), sums_of([1]).named(), strict=True))


def test_part_of_another_model(tmp_path):
    from dataclasses import replace

    write_small_part(tmp_path / "a.pt")
    with pytest.raises(StorageError, match=r"a\.pt: its sums are not those of this harvest's model"):
        read_part(tmp_path / "a.pt", layout_of(replace(TOPOLOGY, vocab_size=7)))
    write_part(tmp_path / "b.pt", random_sums(dtype=torch.float32), Ledger("plan", 1, 0, 1))
    with pytest.raises(StorageError, match=r"b\.pt: its sums are not"):
        read_part(tmp_path / "b.pt", layout_of(TOPOLOGY))


LEDGER = {"plan": "p", "generation": 1, "rank": 0, "world_size": 1, "batches": [[0, 0, 1]]}


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "begins with b''"),
        (b"PK\x03\x04 an archive, as the version before wrote them", "begins with b'PK"),
        ({}, "no part of a harvest, or damaged: ValueError"),
        ({"__metadata__": 3}, "no part of a harvest, or damaged: TypeError"),
        (b'{"__metadata__":' + b"[" * 100_000, "no part of a harvest, or damaged: (Recursion|Value)Error"),
        ({"__metadata__": {"ledger": "{}"}}, "damaged: plan: Field required"),
        ({**LEDGER, "n_tokens": None}, "n_tokens: Input should be a valid integer, found None"),
        ({**LEDGER, "started": float("inf")}, "started: "),
        ({**LEDGER, "batches": [[0, 8, 0]]}, r"batches: .*found \[0, 8, 0\]"),
        ({**LEDGER, "world_size": 10**7}, "world_size: "),
    ],
)
def test_damaged_ledgers(tmp_path, head, message):
    if not isinstance(head, bytes):
        content = {"__metadata__": {"ledger": json.dumps(head)}} if "plan" in head else head
        head = json.dumps(content, separators=(",", ":")).encode()
    counted = head if head.startswith(b"PK") or not head else len(head).to_bytes(8, "little") + head
    (tmp_path / "a.pt").write_bytes(counted)
    with pytest.raises(StorageError, match=rf"a\.pt is .*{message}"):
        read_ledger(tmp_path / "a.pt")


def test_a_part_is_a_file_of_safetensors_with_a_seal_behind(tmp_path):
    sums = sums_of([1, 2])
    write_part(tmp_path / "a.pt", sums, Ledger("plan", 1, 0, 1, [(1, 2, 1)], 6))
    content = (tmp_path / "a.pt").read_bytes()
    loaded = safetensors.torch.load(content[: -len(trailer("0" * 64))])
    rows = {f"live/{layer}": live.ids for layer, live in sums.live.items()}
    columns = {f"targets/{layer}": ids for layer, ids in sums.layout.targets.items()}
    expected = {**rows, **columns, **dict(sums.named())}
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }


def test_identity_changes_with_every_publish(tmp_path):
    path = tmp_path / "a.pt"
    assert FileIdentity.of(path) is None
    write_small_part(path)
    first = FileIdentity.of(path)
    assert first == FileIdentity.of(path)
    write_small_part(path)
    assert FileIdentity.of(path) != first


def test_header_comes_back_and_the_first_one_counts(tmp_path):
    published = header().publish(tmp_path)
    again = Header(TOPOLOGY, {}, unembedding(5), 0.9, {}).publish(tmp_path)
    for found in (published, again, Header.load(tmp_path)):
        assert found.topology == TOPOLOGY
        assert torch.equal(found.w_unembed, unembedding())
        assert found.alive.keys() == TOPOLOGY.n_components.keys()
        assert (found.ci_threshold, found.provenance) == (0.25, {"weights_digest": "w"})
    assert stat.S_ISREG((tmp_path / HEADER_FILE).stat().st_mode)


class Foreign:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "was written by another version"),
        ({"topology": {"sources": {}}}, "was written by another version"),
        (Foreign(), "is damaged, or no header of a harvest"),
        ({"alive": {}}, "its targets are not those of its graph"),
        ({"alive": {layer: torch.ones(1).bool().expand(10**9) for layer in TOPOLOGY.n_components}}, "it declares"),
        ({"w_unembed": torch.zeros(1).expand(unembedding().shape)}, "its unembedding is torch.float32 of shape"),
        ({"w_unembed": torch.zeros(2, 2)}, r"its unembedding is torch.float32 of shape \(2, 2\)"),
        ({"provenance": 3}, "its provenance is no mapping"),
        ({"topology": {"n_components": {"0.mlp.up": 3}}}, "its graph has layers without components: "),
    ],
)
def test_damaged_headers(tmp_path, content, message):
    header().publish(tmp_path)
    if isinstance(content, dict) and message.startswith(("its", "it declares")):
        whole = torch.load(tmp_path / HEADER_FILE, weights_only=True)
        content = {**whole, **content, "topology": {**whole["topology"], **content.get("topology", {})}}
    publish_sealed(tmp_path / HEADER_FILE, lambda file: torch.save(content, file), 0)
    with pytest.raises(StorageError, match=rf"harvest\.pt .*{message}"):
        Header.load(tmp_path)


def test_a_sealed_header_that_is_no_archive(tmp_path):
    publish_sealed(tmp_path / HEADER_FILE, lambda file: file.write(b"no"), 0)
    with pytest.raises(StorageError, match=r"harvest\.pt is damaged, or no header"):
        Header.load(tmp_path)
