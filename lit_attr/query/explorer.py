"""A stored harvest, opened for questions."""

import os
from pathlib import Path

from lit_attr.query.key_questions import KeyQuestions
from lit_attr.query.layer_questions import LayerQuestions
from lit_attr.query.opened import Opened
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.address import ComponentKey


class Explorer(KeyQuestions, LayerQuestions):
    """A stored harvest, opened for questions. `AttributionRepo.explore` opens one.

    A key is `<layer>:<index>`; the layer may be a module path, the index of a token its text: `h.0.mlp.c_fc:5`,
    `output:" her"`. `layers` are names, or patterns such as `0.*` and `*.attn.o`.

    With an index beside the stored harvest (`lit-attr index`), questions about what a component or token feeds, about
    output tokens, and about pairs of layers are fast however large it is. The answers are the same without it.

    Args:
        path: The stored harvest's file.
        tokenizer: A `tokenizer.json`; without it, the one that the harvest's provenance leads to.

    Raises:
        StorageError: If the file is missing or damaged.
        ConfigurationError: If there is no such tokenizer.
    """

    def __init__(self, path: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None) -> None:
        opened = Opened(Path(path), None if tokenizer is None else Path(tokenizer))
        KeyQuestions.__init__(self, opened)
        LayerQuestions.__init__(self, opened)

    @property
    def path(self) -> Path:
        """The stored harvest's file."""
        return self._opened.path

    def token(self, layer: str, index: int) -> str | None:
        """The text of a token; None for components, and where no tokenizer was found.

        Args:
            layer: Canonical address.
            index: Component index, or token id.

        Raises:
            DataError: If the tokenizer cannot be read.
        """
        return self._opened.node(ComponentKey(layer, index)).token

    @property
    def storage(self) -> DatasetAttributionStorage:
        """The stored harvest."""
        return self._opened.storage
