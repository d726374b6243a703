"""Imports without what others import along and nobody uses."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"


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


class _PostponedCompiler(ModuleType):
    """What torch and Lightning ask torch's compiler for where nothing is compiled; the real one answers all else."""

    class OptimizedModule:
        """The class of compiled modules: there are none before the compiler is imported."""

    def __init__(self) -> None:
        super().__init__(_COMPILER)
        self.__path__ = []  # it is a package, whose modules `_RealModules` finds

    @staticmethod
    def disable(function: Callable, *args: object, **options: object) -> Callable:
        """A function that is not to be compiled."""
        return function

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        if name.startswith("__"):  # asked by Python itself of every module
            raise AttributeError(name)
        return getattr(_real_compiler(), name)


class _RealModules(Loader):
    """A finder on Python's import path that answers for the modules of the postponed compiler: imports the real one."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(f"{_COMPILER}.") or not _is_postponed():
            return None
        _real_compiler()
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return import_module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it is imported."""


def _is_postponed() -> bool:
    return isinstance(sys.modules.get(_COMPILER), _PostponedCompiler)


def _real_compiler() -> ModuleType:
    if _is_postponed():
        del sys.modules[_COMPILER]
    return import_module(_COMPILER)


@contextmanager
def compiler_later() -> Iterator[None]:
    """Let torch's compiler, which takes a second to import, stay away where nothing is compiled.

    Lightning asks for it when it is imported, and torch where tensors on the meta device are computed with. They are
    told that there are no compiled modules. Whoever needs more of it meanwhile, or anything later, imports it.
    """
    import torch  # noqa: F401 - what it needs of its compiler it imports by itself

    if _COMPILER in sys.modules:
        yield
        return
    sys.modules[_COMPILER] = _PostponedCompiler()
    finder = _RealModules()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if _is_postponed():
            del sys.modules[_COMPILER]
