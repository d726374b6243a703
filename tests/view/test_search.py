import pytest

from lit_attr.assets import ASSETS
from lit_attr.view.viewed_result import ViewedResult
from tests.storage.examples import random_storage


@pytest.fixture
def search(file):
    return ViewedResult(file).search  # of the demo's tokens the first five: <s> . Mia Lily Anna


def keys(found):
    return [hit["key"] for hit in found["hits"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mia", ["output:2", "embed:2"]),
        ("mia ", ["output:2", "embed:2"]),
        ("il", ["output:3", "embed:3"]),
        ('"Mia"', ["output:2", "embed:2"]),
        ('"mia"', []),
        ('"Mi', []),
        ('"Mia', ["output:2", "embed:2"]),
        ("Ana", ["output:4", "embed:4"]),
        ("embed:M", ["embed:2"]),
        ('output:"Mia"', ["output:2"]),
        ("output:2", ["output:2"]),
        ("output:", ["output:0", "output:1", "output:2", "output:3", "output:4"]),
        ("0.attn.q:1", ["0.attn.q:1"]),
        ("h.0.mlp.c_fc:2", ["0.mlp.up:2"]),
        ("0.mlp", ["0.mlp.up:", "0.mlp.down:"]),
        ("mlp", ["0.mlp.up:", "0.mlp.down:"]),
        ("h.0.mlp.c_fc", ["0.mlp.up:"]),
        ("h.0.mlp", ["0.mlp.up:", "0.mlp.down:"]),
        ("h.0.mlp.d", ["0.mlp.down:"]),
        ("h", []),
        ("down", ["0.mlp.down:"]),
        ("  ", []),
    ],
)
def test_what_is_found(search, text, expected):
    found = search.answer(text)
    assert keys(found) == expected
    assert expected or found["why"] or not text.strip()


def test_hits_say_what_they_are(search):
    hit = {"key": "output:2", "token": "Mia", "kind": "token", "size": None, "was_harvested": True}
    assert search.answer("Mia")["hits"][0] == hit
    assert search.answer("Mja")["hits"][0] == {**hit, "kind": "near"}
    assert search.answer("down")["hits"] == [
        {"key": "0.mlp.down:", "token": None, "kind": "layer", "size": 4, "was_harvested": True}
    ]
    assert search.answer("0.attn.q:0")["hits"][0]["kind"] == "component"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.attn.q:2", "0.attn.q has 2 components (0 to 1)"),
        ("0.attn.q:x", "malformed component key '0.attn.q:x'"),
        ("zzz", "no layer's name begins with 'zzz', and no token contains \"zzz\""),
    ],
)
def test_why_nothing_is_found(search, text, why):
    found = search.answer(text)
    assert found["hits"] == []
    assert why in found["why"]


def test_exact_texts_come_first(tmp_path):
    import tokenizers

    words = ["there", "The", "the", "other", "bathe"]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="the"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    random_storage().save(tmp_path / "x.pt")
    search = ViewedResult(tmp_path / "x.pt", tmp_path / "tokenizer.json").search
    assert keys(search.answer("output:the")) == [f"output:{n}" for n in (2, 1, 0, 3, 4)]


def test_digits_that_more_numbers_begin_with(tmp_path):
    from lit_attr.view.search import _beginning_with

    assert list(_beginning_with("1", 120)) == [1, *range(10, 20), *range(100, 120)]
    assert list(_beginning_with("0", 120)) == [0]
    assert list(_beginning_with("7", 7)) == []


def test_without_a_tokenizer(tmp_path):
    random_storage().save(tmp_path / "x.pt")
    search = ViewedResult(tmp_path / "x.pt").search
    assert "no tokenizer was found: give one with --tokenizer" in search.answer("Mia")["why"]
    assert search.answer("output:2")["hits"][0] == {
        "key": "output:2",
        "token": None,
        "kind": "token",
        "size": None,
        "was_harvested": True,
    }
    with_one = ViewedResult(tmp_path / "x.pt", ASSETS / "tokenizer.json").search
    assert keys(with_one.answer("Mia")) == ["output:2", "embed:2"]
