"""Damage of bytes, and of trees of plain values: what a broken disk does, and what a mistaken program writes.

All that is random comes from one `random.Random`, so that a seed, or Hypothesis, decides a case.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

# Stands for a value nested this deep, which no library would write: exchanged in the written text.
DEEP = "@@nested@@"
DEPTH = 100_000
_NUMBERS = (
    *(-1, 0, 1, 2, 7, 10**8, 10**9, 10**12, 2**31, -(2**31), 2**63, -(2**63), 10**400),
    *(0.5, 1e300, math.nan, math.inf),
)
_RANGES = ([0, 10**13, 1], [0, 3, 0], [5, 0, -1], [-5, 3, 1], [0, 2**62, 2**61], [0, 1], [0, 1, 1, 1], [0, 1.5, 1])


def broken_bytes(random: Random, good: bytes) -> bytes:
    """What is left of a file: flipped bits, a lost end, pieces doubled, lost, exchanged or zero."""
    data = bytearray(good)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        if not data:
            break
        start = random.randrange(len(data))
        length = random.choice((1, 2, 4, 16, 512))
        kind = random.randrange(7)
        if kind == 0:
            data[start] ^= 1 << random.randrange(8)
        elif kind == 1:
            data[start] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif kind == 2:
            del data[start:]
        elif kind == 3:
            del data[start : start + length]
        elif kind == 4:
            data[start:start] = data[start : start + length]
        elif kind == 5:
            data[start : start + length] = bytes(min(length, len(data) - start))
        else:
            other = random.randrange(len(data))
            data[start : start + length] = data[other : other + length]
    return bytes(data)


def odd_value(random: Random) -> Any:  # noqa: ANN401 - of any type, that is the point
    """A value that hardly any entry should have."""
    kind = random.randrange(6)
    if kind == 0:
        return random.choice(_NUMBERS)
    if kind == 1:
        return [list(random.choice(_RANGES)) for _ in range(random.randrange(1, 4))]
    if kind == 2:
        return random.choice(("", "x", "../..", "\0", "x" * 300, "x" * 100_000, "\u2028", "1", "null"))
    if kind == 3:
        return random.choice((None, True, False, [], {}, [None], {"": None}, [[]], [{}] * 1000))
    if kind == 4:
        return DEEP
    return random.choice((list(random.choice(_RANGES)), [0] * 10_000, {str(n): n for n in range(1000)}))


def places(tree: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    """All (container, key) of a tree of dictionaries and lists."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(entries):
        yield tree, key
        yield from places(value)


def damaged_tree(random: Random, tree: Any, odd: Callable[[Random], Any] = odd_value) -> Any:  # noqa: ANN401
    """A tree with entries that are exchanged, lost, renamed, or odd.

    Args:
        random: Decides.
        tree: Dictionaries and lists; stays as it is.
        odd: Makes an odd value.
    """
    if random.randrange(40) == 0:
        return odd(random)
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        there = list(places(tree))
        if not there:
            break
        container, key = random.choice(there)
        kind = random.randrange(8)
        if kind < 4:
            container[key] = odd(random)
        elif kind == 4:
            del container[key]
        elif kind == 5:
            other, name = random.choice(there)
            if name in other if isinstance(other, dict) else name < len(other):
                container[key] = copy.deepcopy(other[name])
        elif kind == 6 and isinstance(container, dict):
            container[random.choice(("", "x", "version", "name"))] = container.pop(key)
        elif kind == 7 and isinstance(container[key], int) and abs(container[key]) < 2**64:
            number = container[key]
            near = -number, number + 1, number - 1, number * 10**6
            container[key] = random.choice((*near, float(number), str(number)))
    return tree


def nested_text(text: str) -> bytes:
    """JSON, or YAML, with the deep value in its places."""
    deep = "[" * DEPTH + "]" * DEPTH
    return text.replace(f'"{DEEP}"', deep).encode(errors="surrogatepass")


def damaged_json(random: Random, good: bytes) -> bytes:
    """A JSON file with odd entries, or broken bytes."""
    kind = random.randrange(10)
    if kind < 3:
        return broken_bytes(random, good)
    text = json.dumps(damaged_tree(random, json.loads(good)))
    if kind == 3:  # an entry twice, in another place than the first
        text = text.replace("{", '{"n_batches": -1, "format": [], "name": null, ', 1)
    if kind == 4:
        text = random.choice((f'"{DEEP}"', '{"a":' * 5000 + "1" + "}" * 5000, "9" * 5000, "NaN", "", "[" * DEPTH))
    return nested_text(text)
