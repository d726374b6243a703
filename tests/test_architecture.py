"""The house: which room may know which, how large its files are, and that its drawing is up to date."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

from tools.architecture.imports import PACKAGE, When, reached, read_modules
from tools.architecture.page import rewritten
from tools.architecture.rooms import FLOOR_OF, arrows

ROOT = Path(__file__).parents[1]
MODULES = read_modules(ROOT)
CODE = ("lit_attr", "tools", "benchmarks", "tests")
# Files below 30 lines, each with the reason why it stands by itself.
SMALL = {
    "lit_attr/attribution/occurring.py": "two engines share it, and closed forms find the same with other counts",
    "lit_attr/early_signal.py": "the entry and the harvest share it, and it must import nothing",
    "lit_attr/query/frames.py": "two files of answers share it, and they alone need polars",
    "lit_attr/decomposition/untrained/neurons.py": "its class path is part of what identifies a harvest",
    "lit_attr/decomposition/untrained/svd.py": "its class path is part of what identifies a harvest",
}


def foreign(room, *names):
    """Chains of imports that lead from a room to something that it must not know."""
    return [
        " -> ".join(chain)
        for module in MODULES.values()
        if module.room == room
        for reached_module, chain in reached(module.name, MODULES).items()
        if any(f"{reached_module}.".startswith(f"{name}.") for name in names)
    ]


def test_every_room_has_its_floor():
    assert {module.room for module in MODULES.values()} == FLOOR_OF.keys()


def test_no_arrow_leads_up_or_sideways():
    """Imports inside functions and those for type checkers count too."""
    wrong = [
        f"{module.path}:{imported.line} imports {imported.module}"
        for module in MODULES.values()
        for imported in module.imports
        if imported.module.partition(".")[0] == PACKAGE
        if (room := (f"{imported.module}.{PACKAGE}").split(".")[1]) != module.room
        if FLOOR_OF[room] >= FLOOR_OF[module.room]
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_import_each_other_in_no_circle():
    graph = {
        module.name: {
            imported.module
            for imported in module.imports
            if imported.module in MODULES and imported.when is not When.NEVER
        }
        for module in MODULES.values()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    ("room", "unknown"),
    [
        ("files", ("lightning", "torchmetrics")),
        ("topology", ("lightning", "lit_attr.files")),
        ("attribution", ("lightning", "torchmetrics", "lit_attr.files", "lit_attr.storage", "lit_attr.harvest")),
        ("decomposition", ("lightning", "lit_attr.attribution")),
        ("storage", ("lightning", "lit_attr.decomposition", "lit_attr.attribution", "lit_attr.parts")),
        ("parts", ("lightning", "lit_attr.decomposition", "lit_attr.harvest")),
        ("query", ("lightning", "lit_attr.harvest", "lit_attr.parts")),
        ("launch", ("torch", "lightning", "lit_attr.harvest")),
    ],
)
def test_what_a_room_does_not_know(room, unknown):
    assert not foreign(room, *unknown)


def test_the_words_import_nothing_of_the_package():
    words = MODULES[f"{PACKAGE}.topology.words"]
    assert {imported.module.partition(".")[0] for imported in words.imports} <= sys.stdlib_module_names


def test_names_and_the_entry_point_load_without_heavy_libraries():
    light = [
        PACKAGE,
        *(f"{PACKAGE}.{name}" for name in ("errors", "topology.words", "topology.address", "topology.graph")),
        *(f"{PACKAGE}.{name}" for name in ("topology.paths", "topology.choice", "cli.main")),
    ]
    program = f"""
import importlib, sys
for module in {light}:
    importlib.import_module(module)
    print(module, [name for name in ("torch", "lightning", "numpy", "wandb", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [f"{module} []" for module in light]


def test_sizes_of_files():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
    }
    assert not {name: n for name, n in lengths.items() if n > 400}
    inside = {
        str(module.path): module.n_lines
        for module in MODULES.values()
        if module.path.name not in ("__init__.py", "__main__.py", "_version.py")
    }
    assert median(inside.values()) < 130
    assert {name for name, n in inside.items() if n < 30} == SMALL.keys()


def test_every_module_says_what_it_is():
    assert not [str(module.path) for module in MODULES.values() if not module.summary.endswith((".", "?"))]


def test_the_drawing_is_up_to_date():
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert page == rewritten(page, ROOT), "to write it anew: python -m tools.architecture"
    assert all(module.summary in page for module in MODULES.values())


def test_kinds_of_imports_are_told_apart(tmp_path):
    """The reader itself, on a house of three rooms."""
    (tmp_path / PACKAGE).mkdir()
    for name, text in {
        "__init__": '"""Door."""\n',
        "low": '"""Low."""\nimport json.decoder\n',
        "middle": '"""Middle."""\nfrom lit_attr import low\nif True:\n    from lit_attr.low import x\n',
        "high": (
            '"""High."""\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lit_attr import low\n'
            "class A:\n    def f(self):\n        import lit_attr.middle as m\n"
        ),
    }.items():
        (tmp_path / PACKAGE / f"{name}.py").write_text(text)
    modules = read_modules(tmp_path)
    assert [(i.module, i.when, i.line) for i in modules["lit_attr.high"].imports] == [
        ("typing", When.LOADING, 2),
        ("lit_attr.low", When.NEVER, 4),
        ("lit_attr.middle", When.CALLED, 7),
    ]
    assert arrows(modules.values()) == {("middle", "low"): True, ("high", "middle"): False}
    assert reached("lit_attr.middle", modules)["json.decoder"] == ("lit_attr.middle", "lit_attr.low", "json.decoder")
    assert "json.decoder" not in reached("lit_attr.high", modules)


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "lit_attr" / "assets" / "README.md"]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_pages_name_files_that_are_there(page):
    """Paths in backticks, from the repository's root or the package's, and links to files."""
    text = page.read_text()
    paths = re.findall(r"`([\w./]+(?:\.py|/))`", text)
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    rooms = [ROOT, ROOT / "lit_attr", *(path for path in (ROOT / "lit_attr").rglob("*") if path.is_dir())]
    lost = [path for path in paths if "/" in path.rstrip("/") and not any((room / path).exists() for room in rooms)]
    assert not lost + [link for link in links if not (page.parent / link).exists()]


# A line of a docstring that begins like this needs its neighbour to be understood.
FRAGMENT = re.compile(r"(Of|As for|As in|As there|As `|The same|Those|Whose|Under)\b")


def docstring_lines(path):
    """First lines of docstrings, and what stands behind the name in `Args`, `Attributes` and `Raises`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first, *others = (ast.get_docstring(node) or "").splitlines() or [""]
            yield first
            yield from (match[1] for line in others if (match := re.match(r"\s+\w+: (.*)", line)))


def test_docstrings_begin_with_a_noun():
    fragments = [
        f"{path.relative_to(ROOT)}: {line}"
        for folder in ("lit_attr", "tools", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in docstring_lines(path)
        if FRAGMENT.match(line)
    ]
    assert not fragments, "\n".join(fragments)
