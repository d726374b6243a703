"""A grammar of short stories: pronouns agree with a name seen earlier, verbs with their subject, and objects come back.

A story is about one thing and its owner: a girl, a boy, or several children. It begins with the owner's name or comes
to it within a few words; from there on the owner is the name or a pronoun that agrees, and the thing keeps its noun and
its adjective. Animals come alone or in twos or more, and `was` or `were` follows from that.

The several are there for the sake of the other two: without them one gender could be the default, and only the names of
the other would have to be noticed.
"""

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["female", "male", "several"]

START = "<s>"
STOP = "."
NAMES: dict[Kind, tuple[str, ...]] = {
    "female": ("Mia", "Lily", "Anna", "Emma", "Zoe", "Ruth"),
    "male": ("Tom", "Ben", "Max", "Leo", "Sam", "Jack"),
    "several": ("twins", "kids", "friends"),
}
# Subject, object, possessive: `her` is both of the last two, as in English.
PRONOUNS: dict[Kind, tuple[str, str, str]] = {
    "female": ("she", "her", "her"),
    "male": ("he", "him", "his"),
    "several": ("they", "them", "their"),
}
ANIMALS = {"cat": "cats", "dog": "dogs", "bird": "birds", "fox": "foxes", "duck": "ducks"}
VERBS = {"one": "was", "many": "were"}
THINGS = ("ball", "kite", "hat", "boat", "drum", "cake")
PLACES = ("garden", "park", "house", "forest")
LOOKS = ("red", "blue", "green", "new")
MOODS = ("happy", "tired", "hungry", "loud")
_DETERMINERS = ("the", "a", "two")
_VERBS_OF_ACTION = ("had", "saw", "liked", "followed", "took", "went")
_OF_PLACE_AND_TIME = ("to", "in", "near", "one", "day")


def vocabulary() -> list[str]:
    """All words in the order of their ids; the start of a story is id 0."""
    pronouns = [word for forms in PRONOUNS.values() for word in forms]
    animals = [word for pair in ANIMALS.items() for word in pair]
    names = [name for of_kind in NAMES.values() for name in of_kind]
    words = [START, STOP, *names, *pronouns, *animals, *VERBS.values(), *THINGS, *PLACES, *LOOKS, *MOODS]
    words += [*_DETERMINERS, *_VERBS_OF_ACTION, *_OF_PLACE_AND_TIME]
    return list(dict.fromkeys(words))


@dataclass(frozen=True)
class _Cast:
    """What a story keeps to: a thing and its owner."""

    name: list[str]
    subject: str
    object: str
    possessive: str
    look: str
    thing: str


def story(rng: random.Random, n_words: int) -> list[str]:
    """The first words of a story.

    Args:
        rng: Decides everything.
        n_words: Number of words, the start and the stops included; a story is cut where they end.
    """
    kind = rng.choice(tuple(NAMES))
    name = rng.choice(NAMES[kind])
    cast = _Cast(["the", name] if kind == "several" else [name], *PRONOUNS[kind], rng.choice(LOOKS), rng.choice(THINGS))
    words = [START, *_opening(rng, cast), STOP]
    while len(words) < n_words:
        words += [*rng.choice(_SENTENCES)(rng, cast), STOP]
    return words[:n_words]


def _opening(rng: random.Random, cast: _Cast) -> list[str]:
    had = [*cast.name, "had", "a", cast.look, cast.thing]
    return rng.choice(([], ["one", "day"], ["in", "the", rng.choice(PLACES)])) + had


def _animal(rng: random.Random) -> tuple[list[str], str]:
    """An animal or several, and the verb that agrees."""
    one = rng.choice(tuple(ANIMALS))
    return rng.choice(((["the", one], VERBS["one"]), ([rng.choice(("the", "two")), ANIMALS[one]], VERBS["many"])))


def _animal_is(rng: random.Random, cast: _Cast) -> list[str]:
    animal, verb = _animal(rng)
    return [*animal, verb, rng.choice(MOODS)]


def _animal_is_near(rng: random.Random, cast: _Cast) -> list[str]:
    animal, verb = _animal(rng)
    return [*animal, verb, "near", cast.object]


def _animal_acts(rng: random.Random, cast: _Cast) -> list[str]:
    return [*_animal(rng)[0], rng.choice(("liked", "followed")), cast.object]


def _owner_sees(rng: random.Random, cast: _Cast) -> list[str]:
    return [*rng.choice((cast.name, [cast.subject])), "saw", *_animal(rng)[0]]


def _owner_goes(rng: random.Random, cast: _Cast) -> list[str]:
    return [cast.subject, "went", "to", "the", rng.choice(PLACES)]


def _owner_takes(rng: random.Random, cast: _Cast) -> list[str]:
    return [cast.subject, "took", cast.possessive, cast.thing]


def _thing_looks(rng: random.Random, cast: _Cast) -> list[str]:
    return ["the", cast.thing, "was", cast.look]


_SENTENCES = (
    _animal_is,
    _animal_is_near,
    _animal_acts,
    _owner_sees,
    _owner_goes,
    _owner_takes,
    _thing_looks,
)
