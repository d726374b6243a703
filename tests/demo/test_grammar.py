import random
from itertools import pairwise

import pytest
from tokenizers import Tokenizer

from lit_attr.demo.grammar import ANIMALS, NAMES, PRONOUNS, START, STOP, VERBS, story, vocabulary
from tools.demo.build import word_tokenizer

KIND_OF = {word: kind for kind in NAMES for word in (*NAMES[kind], *PRONOUNS[kind])}
STORIES = [story(random.Random(seed), 32) for seed in range(300)]


def test_a_seed_decides_the_story():
    assert story(random.Random(3), 32) == story(random.Random(3), 32)
    assert len({tuple(words) for words in STORIES}) > 290


def test_every_word_is_in_the_vocabulary_and_used():
    assert {word for words in STORIES for word in words} == set(vocabulary())
    assert len(vocabulary()) == len(set(vocabulary()))
    assert vocabulary()[0] == START


@pytest.mark.parametrize("words", STORIES[:50], ids=range(50))
def test_story_keeps_to_one_owner_named_before_any_pronoun(words):
    owners = [word for word in words if word in KIND_OF]
    assert len({KIND_OF[word] for word in owners}) == 1
    names = NAMES[KIND_OF[owners[0]]]
    assert owners[0] in names
    assert len({word for word in owners if word in names}) == 1


@pytest.mark.parametrize("words", STORIES[:50], ids=range(50))
def test_verb_agrees_with_the_word_before_it(words):
    for subject, verb in pairwise(words):
        if subject in ANIMALS and verb in VERBS.values():
            assert verb == VERBS["one"]
        if subject in ANIMALS.values() and verb in VERBS.values():
            assert verb == VERBS["many"]


def test_a_story_is_cut_at_the_number_of_words():
    assert len(story(random.Random(0), 7)) == 7
    assert STOP in story(random.Random(0), 12)


def test_tokenizer_gives_each_word_its_place(tmp_path):
    word_tokenizer(vocabulary()).save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode(" ".join(vocabulary())).ids == list(range(len(vocabulary())))
    assert tokenizer.encode("nonsense").ids == [0]
