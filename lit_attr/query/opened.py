"""A stored harvest with all that questions to it need."""

from functools import cached_property
from pathlib import Path

from lit_attr.errors import ConfigurationError, EdgeNotFoundError
from lit_attr.query.answers import Node
from lit_attr.query.index import Index
from lit_attr.query.keys import KeyReader, tables_of
from lit_attr.query.ranking import Ranker
from lit_attr.query.summaries import Pairs
from lit_attr.query.token_texts import TokenTexts
from lit_attr.query.tokenizer_file import tokenizer_places
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.key_edges import KeyEdges
from lit_attr.topology.address import EMBED, OUTPUT, ComponentKey
from lit_attr.topology.words import AttrMetric


class Opened:
    """A stored harvest, its index, its tokenizer, its names.

    Args:
        path: The stored harvest's file.
        tokenizer: A `tokenizer.json`; None for the one that the harvest's provenance leads to.

    Raises:
        StorageError: If the file is missing or damaged.
        ConfigurationError: If there is no such tokenizer.
    """

    def __init__(self, path: Path, tokenizer: Path | None) -> None:
        self.path = path
        self.storage = DatasetAttributionStorage.load(path)
        self.query = KeyEdges(self.storage)
        self.use(Index.open(path))
        if tokenizer is not None and not tokenizer.is_file():
            raise ConfigurationError(f"no tokenizer at {tokenizer}: expected a tokenizer.json")
        self._tokenizer = tokenizer

    def use(self, index: Index | None) -> None:
        """Answer from now on with an index, or without one."""
        self.index = index
        self.ranker = Ranker(self.query, index)
        self.pairs = Pairs(self.query.blocks, index)

    @cached_property
    def reader(self) -> KeyReader:
        """Reads keys.

        Raises:
            StorageError: If the provenance has a table of paths that is none.
        """
        tables = tables_of(self.storage.recorded.path_table)
        return KeyReader([EMBED, *self.storage.ci_sum, OUTPUT], tables, self.tokens, self._places)

    def node(self, key: ComponentKey) -> Node:
        """A key with the text of its token.

        Raises:
            DataError: If the tokenizer cannot be read.
        """
        known = self.tokens if key.layer in (EMBED, OUTPUT) else None
        return Node(str(key), key.layer, key.index, None if known is None else known.text(key.index))

    def pair(self, source: str, target: str, metric: AttrMetric) -> tuple[str, str]:
        """The canonical addresses of two layers between which there are edges.

        Raises:
            EdgeNotFoundError: If there are none.
            KeyFormatError: If a module path may be that of several layers.
        """
        found = self.reader.layer(source), self.reader.layer(target)
        for name in found:
            if name not in self.reader.layers:
                raise EdgeNotFoundError(f"unknown layer {name!r}; layers are: {', '.join(self.reader.layers)}")
        if found[0] not in self.query.blocks.source_layers(found[1], metric):
            why = self.query.why_no_edges(found[1], metric)
            raise EdgeNotFoundError(f"no {metric} edges from {found[0]} to {found[1]}; {why}")
        return found

    @cached_property
    def _places(self) -> list[Path]:
        if self._tokenizer is not None:
            return [self._tokenizer]
        return list(tokenizer_places(self.storage.recorded))

    @cached_property
    def tokens(self) -> TokenTexts | None:
        """The texts of tokens; None where no tokenizer was found."""
        file = next((place for place in self._places if place.is_file()), None)
        return None if file is None else TokenTexts(file, self.query.blocks.size(OUTPUT))
