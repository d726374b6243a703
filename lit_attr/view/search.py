"""Finding components and tokens by what someone types."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any

from lit_attr.errors import EdgeNotFoundError, LitAttrError
from lit_attr.query.explorer import Explorer
from lit_attr.query.token_texts import quoted
from lit_attr.topology.address import EMBED, OUTPUT, ComponentKey

_N_HITS, _N_LAYERS = 30, 12
_SHORTEST_NEAR = 3


@dataclass(frozen=True)
class Hit:
    """A component, token or layer that a search came upon.

    Attributes:
        key: Key of a component or token; for a layer, its name and a colon.
        token: Text of the token; None for others.
        kind: What it is: `component`, `token`, `near` (a token of a similar text) or `layer`.
        size: Number of components, or of token ids, of a layer; None for others.
        was_harvested: False for a component that was no target of the harvest.
    """

    key: str
    token: str | None
    kind: str
    size: int | None = None
    was_harvested: bool = True


class Search:
    """Searches a result.

    Args:
        explorer: The result, opened.
    """

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._reader = explorer.reader
        self._sizes = explorer.layers
        self._tokenizer = explorer.tokens

    def read_ahead(self) -> None:
        """Read the texts of all tokens, for which the first search would wait."""
        next(self._ids("a"), None)
        if self._tokenizer is not None:
            self._tokenizer.near("")

    def answer(self, text: str) -> dict[str, Any]:
        """What a text may mean, the likeliest first; where it means nothing, why.

        Args:
            text: A key, the name of a layer or of its module, the text of a token, or the beginning of any of these.
                A token's text may be quoted, as in `" her"`, and is then looked for as it is.
        """
        if not text.strip():
            return {"hits": [], "why": None}
        name, colon, rest = text.strip().partition(":")
        try:
            if colon and (layer := self._reader.layer(name)) in self._sizes:
                candidates = self._of_layer(layer, rest)
            else:
                # Layers whose names have a short text are many: they must not hide a token.
                candidates = chain(islice(self._layers(text.strip()), _N_LAYERS), self._tokens(text, (OUTPUT, EMBED)))
            hits = [asdict(hit) for hit in islice(candidates, _N_HITS)]
        except LitAttrError as error:
            return {"hits": [], "why": str(error)}
        return {"hits": hits, "why": None if hits else self._why_nothing(text)}

    def _layers(self, text: str) -> Iterator[Hit]:
        """Layers whose name, or a word of it, or whose module path begins so."""
        meant = self._reader.layer(text)
        for name, size in self._sizes.items():
            # Without a dot it is as likely a token: all paths begin alike.
            has_path = "." in text and any(path.startswith(text) for path in self._reader.paths(name))
            if name == meant or name.startswith(text) or f".{text}" in name or has_path:
                yield Hit(f"{name}:", None, "layer", size)

    def _of_layer(self, layer: str, rest: str) -> Iterator[Hit]:
        """Components, or tokens, of a layer, by what is behind the colon."""
        size = self._sizes[layer]
        if layer in (EMBED, OUTPUT) and rest and not rest.isdecimal():
            yield from self._tokens(rest, (layer,))
            return
        if rest:  # tells why a number is none of the layer's
            key = self._reader.key(f"{layer}:{rest}")
            if key.index >= size:
                raise EdgeNotFoundError(self._explorer.why_unknown(key))
            rest = str(key.index)
        for index in _beginning_with(rest, size):
            yield self._hit(ComponentKey(layer, index), "token" if layer in (EMBED, OUTPUT) else "component")

    def _tokens(self, text: str, layers: tuple[str, ...]) -> Iterator[Hit]:
        for index, kind in self._ids(text):
            for layer in layers:
                yield self._hit(ComponentKey(layer, index), kind)

    def _ids(self, text: str) -> Iterator[tuple[int, str]]:
        """Token ids: of exactly this text, of this word, of words that begin so, that contain it, and near ones."""
        if self._tokenizer is None:
            return
        if text.startswith('"'):
            exact = _unquoted(text.strip())
            yield from ((index, "token") for index, its in enumerate(self._texts) if its == exact)
            return
        plain = text.strip().casefold()
        ranks: list[list[int]] = [[], [], [], []]
        for index, word in enumerate(self._words):
            if plain in word:
                its = self._texts[index]
                rank = 0 if its == text else 1 if word == plain else 2 if word.startswith(plain) else 3
                ranks[rank].append(index)
        yield from ((index, "token") for rank in ranks for index in rank)
        if not any(ranks) and len(plain) >= _SHORTEST_NEAR:
            near = self._tokenizer.near(text)
            alike = [(near.index(its), index) for index, its in enumerate(self._texts) if its in near]
            yield from ((index, "near") for _, index in sorted(alike))

    def _hit(self, key: ComponentKey, kind: str) -> Hit:
        node = self._explorer.node(key)
        return Hit(node.component_key, node.token, kind, was_harvested=node.was_harvested)

    def _why_nothing(self, text: str) -> str:
        if self._tokenizer is None:
            return (
                f"no layer's name begins with {text!r}, and texts of tokens are not known, since no tokenizer was "
                "found: give one with --tokenizer, or search for a token id, such as output:17"
            )
        return f"no layer's name begins with {text!r}, and no token contains {quoted(text)}"

    @property
    def _texts(self) -> list[str | None]:
        return [] if self._tokenizer is None else self._tokenizer.texts

    @cached_property
    def _words(self) -> list[str]:
        return [(text or "").strip().casefold() for text in self._texts]


def _unquoted(text: str) -> str:
    """A text that is quoted as in JSON; one whose end is not typed yet is taken as it is."""
    try:
        return str(json.loads(text))
    except json.JSONDecodeError:
        return text[1:].removesuffix('"')


def _beginning_with(digits: str, size: int) -> Iterator[int]:
    """Numbers below `size` whose decimal digits begin so, the smallest first."""
    if not digits:
        yield from range(size)
        return
    low, high = int(digits), int(digits) + 1
    while low < size:
        yield from range(low, min(high, size))
        if low == 0:
            return
        low, high = low * 10, high * 10
