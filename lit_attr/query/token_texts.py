"""Texts of tokens, and tokens of texts."""

import difflib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from lit_attr.optional import as_data_error
from lit_attr.query.tokenizer_formats import TokenDecoder, read_tokenizer

_N_NEAR = 5
# What a tokenizer without byte-level tokens writes for a space.
_SPACE = "\u2581"
# Printable by Unicode's classes, and yet unseen: fillers, variation selectors, the empty Braille pattern.
_UNSEEN_RANGES = (
    *((0x34F, 0x34F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800)),
    *((0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF)),
)
_UNSEEN = frozenset(chr(code) for first, last in _UNSEEN_RANGES for code in range(first, last + 1))


class TokenTexts:
    """The texts of a model's token ids.

    Args:
        file: The tokenizer's file, in one of the forms of `read_tokenizer`; it is read when it is needed.
        n_ids: Token ids of the model.
    """

    def __init__(self, file: Path, n_ids: int) -> None:
        self.file = file
        self.n_ids = n_ids

    def text(self, index: int) -> str | None:
        """The text of a token id; None if the tokenizer does not have it.

        Raises:
            DataError: If the tokenizer cannot be read.
        """
        name = self._tokenizer.id_to_token(index)
        if name is None:  # the vocabulary of a model is often padded
            return None
        (text,) = self._decoded([index])
        return _with_space(name, text)

    def ids(self, text: str) -> list[int]:
        """The token ids of a text, all that have it.

        Raises:
            DataError: If the tokenizer cannot be read.
        """
        return [index for index, its in enumerate(self.texts) if its == text]

    def near(self, text: str) -> list[str]:
        """Texts of tokens that may have been meant, the likeliest first.

        Raises:
            DataError: If the tokenizer cannot be read.
        """
        texts = list(dict.fromkeys(its for its in self.texts if its))
        plain = text.strip().casefold()
        alike = [its for its in texts if its.strip().casefold() == plain]
        # Comparing with every token takes too long where there are many: those of about the same length.
        others = [its for its in texts if its not in alike and abs(len(its) - len(text)) <= 1]
        return [*alike, *difflib.get_close_matches(text, others, _N_NEAR, cutoff=0.6)][:_N_NEAR]

    @cached_property
    def texts(self) -> list[str | None]:
        """The texts of all token ids of the model, where the tokenizer has them.

        Raises:
            DataError: If the tokenizer cannot be read.
        """
        known = range(self.n_ids)
        decoded = self._decoded(known)
        names = (self._tokenizer.id_to_token(index) for index in known)
        return [None if n is None else _with_space(n, text) for n, text in zip(names, decoded, strict=True)]

    def _decoded(self, indices: Sequence[int]) -> list[str]:
        """The text of each of some token ids."""
        tokenizer = self._tokenizer
        with as_data_error(f"the tokenizer {self.file} cannot write a text"):
            return tokenizer.decode_batch([[index] for index in indices], skip_special_tokens=False)

    @cached_property
    def _tokenizer(self) -> TokenDecoder:
        return read_tokenizer(self.file)


def _with_space(name: str, text: str) -> str:
    """A decoder takes the space off a text's first word: here it is put back."""
    return f" {text}" if name.startswith(_SPACE) and not text.startswith(" ") else text


def quoted(text: str) -> str:
    """A token's text as keys are written: spaces and what is otherwise invisible can be seen."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() and one not in _UNSEEN else json.dumps(one)[1:-1] for one in written)
