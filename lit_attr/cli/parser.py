"""The parser of `lit-attr predict`: what it refuses is said in one line, and its YAML files are checked."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from lit_attr.files.roots import user_path

_USAGE_ERROR = 2
_KEYS = "expected keys such as model, data, trainer and writer"
RUN_IS_MISSING = "--model.run is missing: it says whose components are attributed"

_KEY = re.compile(r'Parser key "([^"]+)":\s*')
_CLASS = re.compile(r"class_path='([^']+)'")
_UNKNOWN_DECOMPOSITION = re.compile(r'"model\.decomposition".*Expected a dot import path string: (\S+)', re.DOTALL)
# The parser's own alternatives for a value of several types, unless one of them tells more.
_ALTERNATIVE = re.compile(
    r"Expected a (path but .*|class path of a \w+|<class '[\w.]+'>|typing\.Literal\[.*\]|[\w.\[\]]+)$"
)
_FRAME = (
    "Does not validate against any of the Union subtypes",
    *("Subtypes: ", "Errors:", "Given value type: ", "Given value: ", "Subclass types expect one of:"),
    *("a class path (str)", "a dict with", "Not of type Path"),
)


class HarvestParser(LightningArgumentParser):
    """Lightning's parser, with one line for each mistake."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with one line; the usage, in whose 80 lines it would be lost, is left out."""
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(_USAGE_ERROR, f"lit-attr: error: {one_line(message)} (all options: lit-attr predict --help)\n")

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - jsonargparse's
        """Read a configuration file, unless there is something wrong with it as a whole."""
        if problem := _problem_of(user_path(path)):
            self.error(problem)
        return super().parse_path(path, *args, **kwargs)


def one_line(message: str) -> str:
    r"""Say in one line what jsonargparse says in many: the key, what is wrong, and the value.

    Args:
        message: A message of jsonargparse, which has a line for each type that a value might have had.

    Example:
        >>> one_line('Parser key "data.batch_size":\n  Expected a <class \'int\'>. Got value: x')
        "--data.batch_size: expected int, found 'x'"
    """
    if unknown := _UNKNOWN_DECOMPOSITION.search(message):
        return (
            f"--model.decomposition: no class {unknown[1]!r}: expected Svd, Neurons, or the dotted path of a class of "
            "your own, such as package.module.Class"
        )
    key = _KEY.match(message)
    if key and key[1] == "model.run" and _value(message) == "None":
        return RUN_IS_MISSING
    name = f"--{key[1]}: " if key else ""
    lines = [_rephrased(line) for line in message[key.end() if key else 0 :].splitlines()]
    types = [alternative[1] for line in lines if (alternative := _ALTERNATIVE.match(line))]
    problems = " ".join(dict.fromkeys(line for line in lines if line and not _ALTERNATIVE.match(line)))
    if not problems:
        expected = " or ".join(dict.fromkeys(_plain_type(one) for one in types if not one.startswith("path but")))
        return f"{name}expected {expected}, found {_value(message)!r}"
    owner = _CLASS.search(message)
    return name + (f"{owner[1]}: " if owner and owner[1] not in problems else "") + problems


def _rephrased(line: str) -> str:
    """A line of a message without what belongs to its frame; empty if nothing is left."""
    line = line.strip().removeprefix("- ")
    if line.startswith(_FRAME):
        return ""
    line = re.sub(r"^Not a valid subclass of (\w+)\. Got value: (.*)", r"expected a class path of a \1, found \2", line)
    line = re.sub(r"^Not a valid subclass of (\w+)$", r"Expected a class path of a \1", line)
    line = re.sub(r"^Expected a dot import path string: (.*)", r"expected the dotted path of a class, found \1", line)
    line = re.sub(r"^Problem with given class_path '(.*)':", r"\1:", line)
    return _KEY.sub(r"\1:", line).partition(". Got value: ")[0]


def _value(message: str) -> str:
    value = re.search(r"(?:Got value: |Given value: )(.*)", message)
    return value[1] if value else ""


def _plain_type(name: str) -> str:
    if literal := re.fullmatch(r"typing\.Literal\[(.*)\]", name):
        return literal[1].replace(", ", " or ")
    plain = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", name)
    return {"NoneType": "null"}.get(plain, plain)


def _problem_of(path: Path) -> str | None:
    """What is wrong with a configuration file as a whole; None if nothing is, or it cannot be opened."""
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except UnicodeDecodeError as error:
        return f"{path} is no text file: {error}"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        # The second half of a sentence, whose first half is the context.
        start = f"{error.context}, " if (error.problem or "").startswith("but ") else ""
        return f"{path}{where}: {start}{error.problem}"
    except yaml.reader.ReaderError as error:
        return f"{path}, position {error.position}: a character that no text has, #x{error.character:04x}"
    except RecursionError:
        return f"{path} is nested too deeply"
    except (OSError, yaml.YAMLError):
        return None  # said by whoever opens it
    if tree is None:
        return f"{path} is empty: {_KEYS}"
    if not isinstance(tree, yaml.MappingNode):
        what = "a list" if isinstance(tree, yaml.SequenceNode) else "a single value"
        return f"{path} holds {what}: {_KEYS}"
    try:
        return next((f"{path}: {problem}" for problem in _duplicates(tree, "")), None)
    except RecursionError:
        return f"{path} has no end: an alias (*name) stands within what it repeats (&name)"


def _duplicates(node: yaml.Node, above: str) -> Iterator[str]:
    """Keys that stand twice in one mapping, of which YAML would take the second."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicates(item, above)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = f"{above}{key.value}", key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode):
            if name in lines:
                yield f"the key {name} is given twice, in line {lines[name]} and in line {line}"
            lines[name] = line
        yield from _duplicates(value, f"{name}.")
