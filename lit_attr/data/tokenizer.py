"""Tokenizers, from a local tokenizer.json or from the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from lit_attr.errors import DataError
from lit_attr.files.roots import user_path
from lit_attr.optional import as_data_error, require

# A bare tokenizer.json does not say which token ends a text: it is the first of these that the tokenizer has.
_USUAL_EOS = ("<|endoftext|>", "</s>", "<eos>", "[EOS]", "<|eos|>")


class TextTokenizer(Protocol):
    """A tokenizer, as far as a dataset needs one."""

    eos_token: str | None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        ...


class _FileTokenizer:
    def __init__(self, path: Path) -> None:
        self._path = path
        with as_data_error(f"cannot read the tokenizer {path}"):
            self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.eos_token = next((t for t in _USUAL_EOS if self._tokenizer.token_to_id(t) is not None), None)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        with as_data_error(f"the tokenizer {self._path} cannot read a text"):
            return [e.ids for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


class _HubTokenizer:
    def __init__(self, name: str) -> None:
        transformers = require("transformers", "hf")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        except Exception as error:  # anything from the hub: no network, no such id, no access
            raise DataError(f"cannot load the tokenizer {name!r}: {error}") from error
        self.eos_token: str | None = self._tokenizer.eos_token

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


def load_tokenizer(name: str) -> TextTokenizer:
    """Load a tokenizer.

    Args:
        name: A tokenizer.json, a folder with one, or an id on the Hugging Face hub.

    Raises:
        DataError: If there is no such tokenizer.
    """
    path = user_path(name)
    if path.is_file():
        return _FileTokenizer(path)
    if (path / "tokenizer.json").is_file() and not (path / "tokenizer_config.json").is_file():
        return _FileTokenizer(path / "tokenizer.json")
    return _HubTokenizer(str(path) if path.exists() else name)
