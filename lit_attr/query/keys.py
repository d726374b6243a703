"""Keys as people write them: canonical, by module path, by the text of a token."""

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from lit_attr.errors import ConfigurationError, KeyFormatError, UnsupportedModelError, few
from lit_attr.query.token_texts import TokenTexts, quoted
from lit_attr.topology.address import EMBED, OUTPUT, ComponentKey, in_order
from lit_attr.topology.paths import PATH_TABLES, PathTable

_SHOWN = 10


class KeyReader:
    """Reads keys and names of layers.

    Args:
        layers: Canonical addresses of all layers, `embed` and `output` included.
        tables: Where the model may keep its matrices.
        tokens: Texts of the model's tokens; None where no tokenizer was found.
        looked_in: Where a tokenizer was sought, for messages.
    """

    def __init__(
        self, layers: Iterable[str], tables: Iterable[PathTable], tokens: TokenTexts | None, looked_in: Sequence[object]
    ) -> None:
        self.layers = in_order(layers)
        self._tables = list(tables)
        self._tokens = tokens
        self._looked_in = looked_in

    def key(self, text: str) -> ComponentKey:
        """Read a key: `0.mlp.up:5`, `h.0.mlp.c_fc:5`, `embed:17`, `output:" her"`.

        A token's text is quoted as in JSON; the quotes may be left out where it is no number, as a shell takes them.

        Raises:
            KeyFormatError: If it is malformed, or no token, or several, have the text.
            DataError: If the tokenizer cannot be read.
        """
        name, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
        layer = self.layer(name) if colon else name
        if layer in (EMBED, OUTPUT) and rest and not rest.isdecimal():
            return ComponentKey(layer, self._token(text, _unquoted(text, rest)))
        return ComponentKey.parse(f"{layer}:{rest}" if layer != name else text)

    def layer(self, name: str) -> str:
        """The canonical address of a layer that is named by it or by its module path; other names stay as they are.

        Raises:
            KeyFormatError: If the path may be that of several layers.
        """
        if name in self.layers:
            return name
        meant = sorted({address for table in self._tables if (address := _address(table, name)) in self.layers})
        if len(meant) > 1:
            raise KeyFormatError(f"the module path {name!r} may be any of {', '.join(meant)}: name one of them")
        return meant[0] if meant else name

    def paths(self, layer: str) -> list[str]:
        """The module paths that a layer of components has in the models that have all layers."""
        matrices = {name.partition(".")[2] for name in self.layers if name not in (EMBED, OUTPUT)}
        tables = [table for table in self._tables if matrices <= set(table.blocks)]
        return [] if layer in (EMBED, OUTPUT) else [table.path(layer) for table in tables]

    def matching(self, patterns: Sequence[str]) -> set[str] | None:
        """The layers that some names or patterns stand for, such as `0.*` or `*.attn.o`; None for no patterns.

        Raises:
            ConfigurationError: If one stands for none.
            KeyFormatError: If a module path may be that of several layers.
        """
        matched: set[str] = set()
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            meant = [layer for layer in self.layers if fnmatchcase(layer, self.layer(pattern))]
            if not meant:
                raise ConfigurationError(f"no layer matches {pattern!r}; layers are: {', '.join(self.layers)}")
            matched.update(meant)
        return matched or None

    def _token(self, key: str, text: str) -> int:
        if self._tokens is None:
            places = ", ".join(map(str, self._looked_in)) or "nowhere: the result does not say where it comes from"
            raise KeyFormatError(
                f"the key {key!r} names a token by its text, and no tokenizer was found (looked in: {places}); "
                "give one, or a token id"
            )
        ids = self._tokens.ids(text)
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise KeyFormatError(
                f"{len(ids)} tokens have the text {quoted(text)}: give one of the ids {few(ids, _SHOWN)}"
            )
        near = self._tokens.near(text)
        meant = f"; near are {', '.join(map(quoted, near))}" if near else ""
        raise KeyFormatError(f"no token has the text {quoted(text)} in {self._tokens.file}{meant}")


def tables_of(own: PathTable | None) -> list[PathTable]:
    """The tables by which a result's module paths are read.

    Which of the known tables is meant needs not be known: a path's address must be a layer of the result.

    Args:
        own: The table that the result's provenance records, if it was made with one of its own.
    """
    return list(PATH_TABLES.values()) if own is None else [own]


def _address(table: PathTable, path: str) -> str | None:
    try:
        return table.address(path)
    except UnsupportedModelError:
        return None


def _unquoted(key: str, text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        unquoted = json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        raise KeyFormatError(f"malformed key {key!r}: a token's text is quoted as in JSON: {error}") from error
    return str(unquoted)
