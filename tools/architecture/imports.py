"""What each module of the package imports, read from the source without running it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PACKAGE = "lit_attr"


class When(StrEnum):
    """The moment at which an import statement runs."""

    LOADING = "loading"  # as soon as the importing module is loaded
    CALLED = "called"  # inside a function
    NEVER = "never"  # for type checkers alone


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        module: Dotted name, such as `lit_attr.files.lock` or `torch.nn`.
        when: The moment at which the statement runs.
        line: Line of the statement.
    """

    module: str
    when: When
    line: int


@dataclass(frozen=True)
class Module:
    """One file of the package.

    Attributes:
        name: Dotted name; that of a package for its `__init__.py`.
        path: The file, from the repository's root.
        summary: First line of the docstring.
        imports: All imports, those inside functions among them.
        n_lines: Length of the file.
    """

    name: str
    path: Path
    summary: str
    imports: tuple[Import, ...]
    n_lines: int

    @property
    def room(self) -> str:
        """The package or module right below `lit_attr`; `lit_attr` for its `__init__.py` and `__main__.py`."""
        parts = self.name.split(".")
        return PACKAGE if len(parts) == 1 or parts[1] == "__main__" else parts[1]


def read_modules(root: Path) -> dict[str, Module]:
    """All modules of the package by dotted name.

    Args:
        root: Folder that holds the package's folder.
    """
    paths = [path.relative_to(root) for path in sorted((root / PACKAGE).rglob("*.py"))]
    known = {_dotted(path) for path in paths}
    modules = {}
    for path in paths:
        name, text = _dotted(path), (root / path).read_text()
        tree = ast.parse(text)
        imports = tuple(_imports(tree, known, When.LOADING))
        summary = (ast.get_docstring(tree) or "").partition("\n")[0]
        modules[name] = Module(name, path, summary, imports, len(text.splitlines()))
    return modules


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(node: ast.AST, known: set[str], when: When) -> Iterator[Import]:
    """Imports of a syntax tree; `from package import module` is an import of the module."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, when, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            if child.level:
                raise ValueError(f"line {child.lineno}: expected absolute imports, found a relative one")
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield Import(whole if whole in known else str(child.module), when, child.lineno)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(child, known, When.CALLED if when is When.LOADING else when)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from _imports(ast.Module([statement], []), known, When.NEVER)
            for statement in child.orelse:
                yield from _imports(ast.Module([statement], []), known, when)
        else:
            yield from _imports(child, known, when)


def reached(start: str, modules: dict[str, Module]) -> dict[str, tuple[str, ...]]:
    """Every module that loading one module loads, with the chain of modules that leads there.

    Args:
        start: Dotted name of a module of the package.
        modules: All modules of the package; foreign ones are reached, and not entered.
    """
    chains: dict[str, tuple[str, ...]] = {start: (start,)}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        for module in _loaded_with(name, modules):
            if module not in chains:
                chains[module] = (*chains[name], module)
                waiting.append(module)
    return chains


def _loaded_with(name: str, modules: dict[str, Module]) -> Iterator[str]:
    if name in modules:
        yield from (imported.module for imported in modules[name].imports if imported.when is When.LOADING)
    if "." in name:  # the packages around a module are loaded with it
        yield name.rpartition(".")[0]
