import sys

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from lit_attr.data.tokenizer import load_tokenizer
from lit_attr.errors import ConfigurationError, DataError
from tests.data import EOS, LEAST_TOKENS, offline, toy_tokenizer, write_tokenizer  # noqa: F401

TEXTS = ["abcd ef", "", "f ab[EOS]cd"]
IDS = [[10, 7, 5, 6], [], [6, 7, 8, 0, 9]]


def save_as_file(tokenizer: Tokenizer, folder):
    tokenizer.save(str(folder / "some-name.json"))
    return folder / "some-name.json"


def save_as_folder(tokenizer: Tokenizer, folder):
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def save_as_on_the_hub(tokenizer: Tokenizer, folder):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS).save_pretrained(folder)
    assert (folder / "tokenizer_config.json").is_file()
    return folder


@pytest.fixture(params=[save_as_file, save_as_folder, save_as_on_the_hub])
def save(request, tmp_path):
    return lambda tokenizer: str(request.param(tokenizer, tmp_path))


def test_ids_and_eos(save):
    found = load_tokenizer(save(toy_tokenizer()))
    assert found.encode(TEXTS) == IDS
    assert found.eos_token == EOS


def test_no_texts(save):
    assert load_tokenizer(save(toy_tokenizer())).encode([]) == []


def test_special_tokens_are_not_added(save):
    tokenizer = toy_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single=f"{EOS} $A {EOS}", special_tokens=[(EOS, 0)])
    assert tokenizer.encode("f").ids == [0, 6, 0]
    assert load_tokenizer(save(tokenizer)).encode(TEXTS) == IDS


def test_truncation_is_switched_off(save):
    tokenizer = toy_tokenizer()
    tokenizer.enable_truncation(2)
    assert len(tokenizer.encode(TEXTS[0]).ids) == 2
    assert load_tokenizer(save(tokenizer)).encode(TEXTS) == IDS


def test_padding_is_switched_off(save):
    tokenizer = toy_tokenizer()
    tokenizer.enable_padding(length=9, pad_id=0, pad_token=EOS)
    assert len(tokenizer.encode(TEXTS[0]).ids) == 9
    assert load_tokenizer(save(tokenizer)).encode(TEXTS) == IDS


@pytest.mark.parametrize("eos", ["<|endoftext|>", "</s>", "<eos>", "[EOS]", "<|eos|>"])
def test_usual_eos_of_a_file(tmp_path, eos):
    path = write_tokenizer(tmp_path / "tokenizer.json", [*LEAST_TOKENS, eos])
    assert load_tokenizer(str(path)).eos_token == eos


def test_file_without_a_usual_eos(tmp_path):
    path = write_tokenizer(tmp_path / "tokenizer.json", [*LEAST_TOKENS, "<end>"])
    assert load_tokenizer(str(path)).eos_token is None


def test_eos_of_a_hub_folder_is_the_one_that_its_configuration_names(tmp_path):
    from transformers import PreTrainedTokenizerFast

    tokenizer = toy_tokenizer([*LEAST_TOKENS, "</s>", "<end>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).eos_token == "<end>"


def test_damaged_file(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version"')
    with pytest.raises(DataError, match=r"cannot read the tokenizer .*tokenizer\.json: "):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", ["nobody/nothing", "./nowhere/tokenizer.json"])
def test_tokenizer_that_is_nowhere(name):
    with pytest.raises(DataError, match=f"cannot load the tokenizer '{name}': "):
        load_tokenizer(name)


def test_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(DataError, match="cannot load the tokenizer "):
        load_tokenizer(str(tmp_path))


def test_transformers_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigurationError, match=r"'transformers' is needed here: pip install 'lit_attr\[hf\]'"):
        load_tokenizer("nobody/nothing")


def test_a_file_needs_no_transformers(tmp_path, monkeypatch):
    path = write_tokenizer(tmp_path / "tokenizer.json")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert load_tokenizer(str(path)).encode(TEXTS) == IDS
