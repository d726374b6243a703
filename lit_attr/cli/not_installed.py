"""Imports without the libraries that others import along."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError
from types import ModuleType


class _NotInstalled(DistributionFinder):
    """A finder on Python's import path that answers for some libraries: they are not there."""

    def __init__(self, libraries: Sequence[str]) -> None:
        self.libraries = frozenset(libraries)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self.libraries:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        if context is not None and context.name in self.libraries:
            raise PackageNotFoundError(context.name)
        return iter(())


@contextmanager
def not_installed(*libraries: str) -> Iterator[None]:
    """Let libraries look as if they were not installed.

    Modules that are imported meanwhile do without them for as long as the process lives, and others may import them
    afterwards.

    Args:
        libraries: Names of modules, which are the names of their distributions too. Imported ones stay.
    """
    finder = _NotInstalled(libraries)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
