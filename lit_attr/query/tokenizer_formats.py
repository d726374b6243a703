"""Reading tokenizers in the three forms that models come with."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lit_attr.decomposition.run_files import TOKENIZER
from lit_attr.errors import ConfigurationError
from lit_attr.files.roots import user_path
from lit_attr.optional import as_data_error, require

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY, MERGES = "vocab.json", "merges.txt"
SENTENCEPIECE = "tokenizer.model"
_FORMS = f"a {TOKENIZER}, or a folder with one, with {VOCABULARY} and {MERGES}, or with {SENTENCEPIECE}"

# How names in a vocabulary show what they are made of: a space in bytes that are all printable, or the end of a word.
_BYTE_LEVEL_SPACE, _END_OF_WORD = "\u0120", "</w>"


class TokenDecoder(Protocol):
    """Names and texts of token ids; `tokenizers.Tokenizer` is one."""

    def id_to_token(self, id: int) -> str | None:
        """The name of a token in the vocabulary; None if there is none."""
        ...

    def decode_batch(self, sequences: list[list[int]], *, skip_special_tokens: bool = ...) -> list[str]:
        """The texts of sequences of token ids."""
        ...


def tokenizer_in(folder: Path) -> Path | None:
    """The file of the tokenizer in a folder; None if it has none."""
    if (folder / TOKENIZER).is_file():
        return folder / TOKENIZER
    if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
        return folder / VOCABULARY
    return folder / SENTENCEPIECE if (folder / SENTENCEPIECE).is_file() else None


def can_read(file: Path) -> bool:
    """Whether the library that reads a tokenizer's file is installed."""
    return file.suffix != ".model" or find_spec("sentencepiece") is not None


def given_tokenizer(path: Path) -> Path:
    """The file of a tokenizer that a user has named by its file, or by the folder that has it.

    Raises:
        ConfigurationError: If there is none.
    """
    path = user_path(path)
    file = path if path.is_file() else tokenizer_in(path)
    if file is None:
        raise ConfigurationError(f"no tokenizer at {path}: expected {_FORMS}")
    return file.with_name(VOCABULARY) if file.name == MERGES else file


def read_tokenizer(file: Path) -> TokenDecoder:
    """Read a tokenizer.

    Args:
        file: A `tokenizer.json`, a `vocab.json` with a `merges.txt` beside it, or a model of sentencepiece (`.model`).

    Raises:
        DataError: If it cannot be read.
        ConfigurationError: If the library that reads it is not installed.
    """
    if file.suffix == ".model":
        return _SentencePiece(file)
    from tokenizers import Tokenizer

    with as_data_error(f"cannot read the tokenizer {file}"):
        return _of_vocabulary(file) if file.name == VOCABULARY else Tokenizer.from_file(str(file))


def _of_vocabulary(file: Path) -> "Tokenizer":
    """Byte-pair encoding, in either of its spellings."""
    from tokenizers import Tokenizer, decoders, models

    tokenizer = Tokenizer(models.BPE.from_file(str(file), str(file.with_name(MERGES))))
    names = tokenizer.get_vocab()
    if any(name.startswith(_BYTE_LEVEL_SPACE) for name in names):
        tokenizer.decoder = decoders.ByteLevel()
    elif any(name.endswith(_END_OF_WORD) for name in names):
        tokenizer.decoder = decoders.BPEDecoder(suffix=_END_OF_WORD)
    else:
        raise ValueError(f"its names have neither {_BYTE_LEVEL_SPACE!r} for a space nor {_END_OF_WORD!r} behind words")
    return tokenizer


class _SentencePiece:
    def __init__(self, file: Path) -> None:
        library = require("sentencepiece", "hf")
        with as_data_error(f"cannot read the tokenizer {file}"):
            self._model = library.SentencePieceProcessor(model_file=str(file))

    def id_to_token(self, id: int) -> str | None:
        return self._model.id_to_piece(id) if 0 <= id < self._model.get_piece_size() else None

    def decode_batch(self, sequences: list[list[int]], *, skip_special_tokens: bool = False) -> list[str]:
        return [self._decode(sequence) for sequence in sequences]

    def _decode(self, sequence: Sequence[int]) -> str:
        """The text, in which tokens that have none, such as the beginning of a sequence, stand by their names."""
        model = self._model
        known = [index for index in sequence if index < model.get_piece_size()]
        if any(model.is_control(index) or model.is_unknown(index) for index in known):
            return "".join(model.id_to_piece(index) for index in known)
        return model.decode(known)
