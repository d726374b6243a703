"""The tokenizer of the stories: a word is a token."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """A tokenizer that splits at blanks and gives each word its place in the vocabulary.

    Args:
        words: The vocabulary; the first stands for every word that is not in it.
    """
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer
