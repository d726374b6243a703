"""A result with all that answers questions to it."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from lit_attr.errors import ConfigurationError, EdgeNotFoundError
from lit_attr.query.answers import Node
from lit_attr.query.estimates import Estimator
from lit_attr.query.index import Index
from lit_attr.query.keys import KeyReader, tables_of
from lit_attr.query.layer_pairs import LayerPairs
from lit_attr.query.ranking import Ranker
from lit_attr.query.strongest_lists import StrongestLists
from lit_attr.query.token_texts import TokenTexts
from lit_attr.query.tokenizer_file import tokenizer_places
from lit_attr.query.tokenizer_formats import given_tokenizer
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.key_edges import KeyEdges
from lit_attr.storage.standard_errors import WHY_NO_ERRORS
from lit_attr.topology.address import EMBED, OUTPUT, ComponentKey
from lit_attr.topology.choice import Selection
from lit_attr.topology.words import AnySign, AttrMetric, SortBy


class OpenedResult:
    """A result, its index, the names of its layers, and the texts of its tokens.

    Args:
        path: The result's file.
        tokenizer: A `tokenizer.json`; None for the one that the result's provenance leads to.

    Raises:
        StorageError: If the file is missing or damaged.
        ConfigurationError: If there is no such tokenizer.
    """

    def __init__(self, path: Path, tokenizer: Path | None) -> None:
        self.path = path
        self.storage = DatasetAttributionStorage.load(path)
        self.key_edges = KeyEdges(self.storage)
        self.blocks, self.harvested = self.key_edges.blocks, self.key_edges.harvested
        self.use_index(Index.open(path) if self.storage.holds_edges else StrongestLists(path))
        self._tokenizer = None if tokenizer is None else given_tokenizer(tokenizer)

    def use_index(self, index: Index | None) -> None:
        """Answer from now on with an index, or without one."""
        self.index = index
        self.ranker = Ranker(self.key_edges, index)
        self.pairs = LayerPairs(self.blocks, index)
        self.estimator = Estimator(self.blocks, self.ranker.stored_errors)

    @cached_property
    def reader(self) -> KeyReader:
        """Reads keys.

        Raises:
            StorageError: If the provenance has a table of paths that is none.
        """
        tables = tables_of(self.storage.recorded.path_table)
        return KeyReader([EMBED, *self.storage.ci_sum, OUTPUT], tables, self.tokens, self._tokenizer_places)

    @cached_property
    def tokens(self) -> TokenTexts | None:
        """The texts of tokens; None where no tokenizer was found."""
        file = next((place for place in self._tokenizer_places if place.is_file()), None)
        return None if file is None else TokenTexts(file, self.storage.layer_size(OUTPUT))

    @cached_property
    def _tokenizer_places(self) -> list[Path]:
        if self._tokenizer is not None:
            return [self._tokenizer]
        return list(tokenizer_places(self.storage.recorded))

    def node(self, key: ComponentKey) -> Node:
        """A key with the text of its token, and whether it was a target of the harvest.

        Raises:
            DataError: If the tokenizer cannot be read.
            StorageError: If the provenance lists the harvest's targets otherwise than `lit_attr` does.
        """
        tokens = self.tokens if key.layer in (EMBED, OUTPUT) else None
        text = None if tokens is None else tokens.text(key.index)
        return Node(str(key), key.layer, key.index, text, was_harvested=self.harvested.include(key))

    def selection(
        self,
        k: int,
        sign: AnySign,
        layers: Sequence[str],
        sort: SortBy = "value",
        min_z: float = 0.0,
        *,
        sure: bool = False,
    ) -> Selection:
        """Which edges a ranking keeps.

        Args:
            k: How many at most.
            sign: `positive`, `negative` or `both`.
            layers: Names of layers, or patterns; all if none are given.
            sort: By what they rank.
            min_z: Standard errors that their values are away from zero at least.
            sure: Whether zero must not be in their intervals.

        Raises:
            ConfigurationError: If an option is not understood, or needs standard errors that the result has not.
            KeyFormatError: If a module path may be that of several layers.
        """
        if sure and self.storage.standard_errors is None:
            raise ConfigurationError(f"which edges are sure is said by standard errors, and {WHY_NO_ERRORS}")
        return Selection(k, sign, self.reader.matching(layers), sort, min_z, sure)

    def layer_pair(self, source: str, target: str, metric: AttrMetric) -> tuple[str, str]:
        """The canonical addresses of two layers between which there are edges.

        Raises:
            EdgeNotFoundError: If there are none.
            KeyFormatError: If a module path may be that of several layers.
        """
        pair = self.reader.layer(source), self.reader.layer(target)
        for layer in pair:
            if layer not in self.reader.layers:
                raise EdgeNotFoundError(f"unknown layer {layer!r}; layers are: {', '.join(self.reader.layers)}")
        if pair[0] not in self.blocks.source_layers(pair[1], metric):
            why = self.key_edges.why_no_edges(pair[1], metric)
            raise EdgeNotFoundError(f"no {metric} edges from {pair[0]} to {pair[1]}; {why}")
        return pair
