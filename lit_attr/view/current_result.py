"""What the server has open: one result, which may be replaced by a newer one of the same name."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_attr.view.viewed_result import ViewedResult


class CurrentResult:
    """Keeps a result open.

    Args:
        path: Path of its file.
        tokenizer: A `tokenizer.json`; None for the one that the result's provenance leads to.

    Raises:
        StorageError: If the file is missing or damaged.
        ConfigurationError: If there is no such tokenizer.
    """

    def __init__(self, path: Path, tokenizer: Path | None = None) -> None:
        self._path, self._tokenizer = path, tokenizer
        self._lock = threading.Lock()
        self._n_answering = 0
        self.result = self._open()

    def readable(self) -> ViewedResult:
        """What is open, with the index that is there now.

        Raises:
            StorageError: If its file was written over.
        """
        result = self.result
        result.follow_index()
        result.check()
        return result

    def renew(self) -> None:
        """Open what is now under the name, if that is something else; what was open stays where that fails.

        Raises:
            StorageError: If the file is missing or damaged.
        """
        with self._lock:
            if self.result.state != "same":
                self.result = self._open()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While a question is being answered."""
        with self._lock:
            self._n_answering += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_answering -= 1

    @property
    def is_busy(self) -> bool:
        """Whether a question is being answered."""
        return self._n_answering > 0

    def _open(self) -> ViewedResult:
        result = ViewedResult(self._path, self._tokenizer)
        result.search.read_ahead()
        threading.Thread(target=result.read_ahead, name="lit-attr view reads ahead", daemon=True).start()
        return result
