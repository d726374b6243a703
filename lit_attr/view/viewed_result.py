"""The result that is looked at, and whether its file is still the one that was opened."""

import hashlib
import json
import threading
from functools import cached_property
from pathlib import Path
from typing import Literal

from lit_attr.errors import StorageError
from lit_attr.files.identity import FileIdentity
from lit_attr.query.answers import StrongestEdges
from lit_attr.query.explorer import Explorer
from lit_attr.query.index import Index
from lit_attr.query.index_file import identity, index_path
from lit_attr.query.layer_answers import LayerMatrix
from lit_attr.topology.words import AnySign, AttrMetric
from lit_attr.view.search import Search

# `same`: as opened. `replaced` by another file, or `removed`: what was opened can still be read. `changed`: in place.
FileState = Literal["same", "replaced", "removed", "changed"]
# Edges that are summed without asking: about a second.
_FEW_EDGES = 20_000_000
_ID_CHARACTERS = 12
# Bytes that are read beforehand at most, and the numbers of a page of memory.
_READ_AHEAD = 1 << 30
_NUMBERS_OF_A_PAGE = 512


class ViewedResult:
    """A result, opened for the page.

    Args:
        path: Path of its file.
        tokenizer: A `tokenizer.json`; None for the one that the result's provenance leads to.

    Raises:
        StorageError: If the file is missing or damaged, or is replaced meanwhile.
        ConfigurationError: If there is no such tokenizer.
    """

    def __init__(self, path: Path, tokenizer: Path | None = None) -> None:
        self._status, self._index_status = FileIdentity.of(path), FileIdentity.of(index_path(path))
        self.path = path
        self.explorer = Explorer(path, tokenizer)
        # Of two tabs, one asks at a time; what may take long is computed beside, one at a time too.
        self.lock, self._slow_lock = threading.Lock(), threading.Lock()
        self._matrices: dict[tuple[AttrMetric, bool], LayerMatrix] = {}
        self.id = hashlib.sha256(json.dumps(identity(path)).encode()).hexdigest()[:_ID_CHARACTERS]
        self.size = path.stat().st_size
        if self.state != "same":  # what was read by its name may be of two files
            raise StorageError(f"{path} was replaced while it was opened: open it again")

    @cached_property
    def search(self) -> Search:
        """Finds components and tokens."""
        return Search(self.explorer)

    def read_ahead(self) -> None:
        """Have the system read the unembedding and what it is multiplied by, as far as that is not too much.

        The product of one edge to an output token takes a number from each of their pages.
        """
        storage = self.explorer.storage
        factors = [storage.w_unembed, *storage.unembed_attr.values()]
        if storage.holds_edges and sum(factor.nbytes for factor in factors) <= _READ_AHEAD:
            for factor in factors:
                # One number of each page, whatever the order of the dimensions: flattening might copy.
                n_pages = -(-factor.numel() // _NUMBERS_OF_A_PAGE)
                factor.as_strided((n_pages,), (_NUMBERS_OF_A_PAGE,)).sum()

    @property
    def state(self) -> FileState:
        """What became of the file since it was opened."""
        try:
            now = FileIdentity.of(self.path)
        except StorageError:  # for the reader of a page it is gone
            now = None
        if now == self._status:
            return "same"
        if now is None or self._status is None:
            return "removed"
        return "changed" if now.is_same_file(self._status) else "replaced"

    def check(self) -> None:
        """Check that the opened file can still be read.

        Raises:
            StorageError: If it was written over, so that reading it may even kill the process.
        """
        if self.state == "changed":
            raise StorageError(
                f"{self.path} was changed in place since it was opened: open the result that is there now"
            )

    def follow_index(self) -> None:
        """Use the index that is there now, or none."""
        with self.lock:
            now = FileIdentity.of(index_path(self.path))
            # A file of strongest edges alone has no index; that of another file may have the name.
            if now != self._index_status and self.state == "same" and self.explorer.storage.holds_edges:
                self._index_status = now
                index = Index.open(self.path)
                # Else it may be of a file that has come meanwhile.
                self.explorer.use_index(index if self.state == "same" else None)

    def is_quick(self, metric: AttrMetric, pair: tuple[str, str] | None = None) -> bool:
        """Whether sums over all edges, or over those between two layers, are known or soon computed."""
        if self.explorer.is_indexed:
            return True
        pairs = [pair] if pair else self.explorer.layer_pairs(metric=metric)
        return sum(self.explorer.n_stored(*names) for names in pairs) <= _FEW_EDGES

    def _lock_for(self, metric: AttrMetric, pair: tuple[str, str] | None = None) -> threading.Lock:
        return self.lock if self.is_quick(metric, pair) else self._slow_lock

    def matrix(self, metric: AttrMetric, *, normalized: bool) -> LayerMatrix:
        """The edge mass between layers; other questions are answered while it takes long."""
        with self._lock_for(metric):
            if (metric, normalized) not in self._matrices:
                self._matrices[metric, normalized] = self.explorer.matrix(metric=metric, normalized=normalized)
            return self._matrices[metric, normalized]

    def pair_edges(
        self, source: str, target: str, *, k: int, sign: AnySign, metric: AttrMetric, normalized: bool, sure: bool
    ) -> StrongestEdges:
        """The strongest edges between two layers; other questions are answered while it takes long."""
        with self._lock_for(metric, (source, target)):
            return self.explorer.pair_edges(
                source, target, k=k, sign=sign, metric=metric, normalized=normalized, sure=sure
            )
