"""The import hook under which tests run: it has shapes and types of signatures checked at every call.

That of jaxtyping does so for functions inside functions too, each time that they are made, which took a fifth of the
time of all tests; and it lets nothing be imported from compiled files while it works (its issue 329), which took
fifteen seconds of every start.
"""

import ast
import inspect
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped

_CHECKED = "_checked_by_tests"


def check_signatures(*packages: str) -> None:
    """Have all functions, methods and dataclasses of packages checked that are imported from now on."""
    early = [name for name in packages if name in sys.modules]
    assert not early, f"imported before the tests could have their signatures checked: {early}"
    sys.meta_path.insert(0, _Finder(packages))


def checked(defined: Any) -> Any:
    """The function or class, whose calls are refused where an argument or a result is not as the signature says."""
    if inspect.isclass(defined):
        if "__dataclass_fields__" in vars(defined):
            defined.__init__ = checked(defined.__init__)
        return defined
    if any(map(_has_shape, defined.__annotations__.values())):
        return jaxtyped(typechecker=beartype)(defined)
    return beartype(defined)  # Ten times as fast: most functions have nothing whose sizes must agree.


def _has_shape(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    inner = annotation if isinstance(annotation, list) else get_args(annotation)
    return isinstance(annotation, str) or any(map(_has_shape, inner))


class _Finder(MetaPathFinder):
    """Finds what Python's own finder does, with another loader for some packages."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not any(f"{name}.".startswith(f"{package}.") for package in self.packages):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Decorates what a file defines, but not what is defined in functions."""

    def get_code(self, name: str) -> CodeType:
        """From the source each time: what is compiled here is not for others to find."""
        path = self.get_filename(name)
        tree = ast.parse(self.get_data(path), path)
        for node in _definitions(tree.body):
            # A class is seen as its other decorators leave it, a function as it is written.
            place = 0 if isinstance(node, ast.ClassDef) else len(node.decorator_list)
            if not any("no_type_check" in ast.dump(decorator) for decorator in node.decorator_list):
                node.decorator_list.insert(place, ast.copy_location(ast.Name(_CHECKED, ast.Load()), node))
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[_CHECKED] = checked
        super().exec_module(module)


def _definitions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
        if isinstance(node, ast.ClassDef | ast.If):
            yield from _definitions(node.body)
