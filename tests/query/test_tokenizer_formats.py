"""Tokenizers without a tokenizer.json."""

import sys

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lit_attr.errors import ConfigurationError, DataError
from lit_attr.query.explorer import Explorer
from lit_attr.query.token_texts import TokenTexts
from lit_attr.query.tokenizer_file import tokenizer_places
from lit_attr.query.tokenizer_formats import given_tokenizer
from lit_attr.storage.provenance import Provenance
from tests.storage.examples import random_storage

TEXT = ["the cat sat on the mat, the caf\u00e9 was near the sea\n"] * 9


def trained(model, pre_tokenizer, decoder, **options):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], **options, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def byte_level():
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(models.BPE(), split, decoders.ByteLevel(), initial_alphabet=alphabet)


def end_of_word():
    model = models.BPE(end_of_word_suffix="</w>")
    return trained(model, pre_tokenizers.Whitespace(), decoders.BPEDecoder(), end_of_word_suffix="</w>")


@pytest.mark.parametrize("kind", [byte_level, end_of_word])
def test_vocabulary_and_merges(tmp_path, kind):
    """The texts are those that the tokenizer.json of the same tokenizer gives."""
    tokenizer = kind()
    (tmp_path / "whole").mkdir()
    tokenizer.save(str(tmp_path / "whole" / "tokenizer.json"))
    tokenizer.model.save(str(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["merges.txt", "vocab.json"]
    n_ids = tokenizer.get_vocab_size() + 2  # vocabularies of models are padded
    expected = TokenTexts(tmp_path / "whole" / "tokenizer.json", n_ids)
    for named in (tmp_path, tmp_path / "vocab.json", tmp_path / "merges.txt"):
        texts = TokenTexts(given_tokenizer(named), n_ids)
        assert texts.texts == expected.texts
        assert [texts.text(index) for index in range(n_ids)] == expected.texts
    assert (" the" if kind is byte_level else "the") in {text.rstrip() for text in expected.texts if text}
    assert expected.texts[-2:] == [None, None]


def test_places(tmp_path):
    byte_level().model.save(str(tmp_path))
    places = list(tokenizer_places(Provenance({"configuration": {"data": {"dataset": {"tokenizer": str(tmp_path)}}}})))
    assert places == [tmp_path, tmp_path / "tokenizer.json", tmp_path / "vocab.json"]


def test_a_vocabulary_of_another_kind(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(DataError, match=r"cannot read the tokenizer .*vocab.json: its names have neither"):
        TokenTexts(given_tokenizer(tmp_path), 3).text(0)


def test_a_folder_without_tokenizer(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(
        ConfigurationError, match=r"expected a tokenizer.json, or a folder with one, with vocab.json and"
    ):
        given_tokenizer(tmp_path)


def test_sentencepiece(tmp_path):
    library = pytest.importorskip("sentencepiece", reason="the library sentencepiece is not installed (extra hf)")
    (tmp_path / "text.txt").write_text("".join(TEXT))
    library.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    processor = library.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    texts = TokenTexts(given_tokenizer(tmp_path), 302)
    assert [texts.text(index) for index in range(302)] == texts.texts
    assert texts.texts[:3] == ["<unk>", "<s>", "</s>"]
    assert texts.texts[processor.piece_to_id("\u2581the")] == " the"
    assert texts.texts[processor.piece_to_id("<0x0A>")] == "\n"
    assert texts.texts[-2:] == [None, None]
    encoded = processor.encode("the cat sat on the mat")
    assert "".join(texts.text(index) for index in encoded) == " the cat sat on the mat"


def test_sentencepiece_without_its_library(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    random_storage().save(tmp_path / "x.pt")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigurationError, match=r"'sentencepiece' is needed here: pip install 'lit_attr\[hf\]'"):
        Explorer(tmp_path / "x.pt", tmp_path).token("embed", 0)
