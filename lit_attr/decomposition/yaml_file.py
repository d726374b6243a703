"""YAML files of runs, read within limits: a short one can stand for values without end."""

from pathlib import Path
from typing import Any

import yaml

from lit_attr.errors import RunFormatError, reason

# A run's configuration has some hundred entries, at most five levels deep.
_MAX_BYTES = 1 << 20
_MAX_ENTRIES = 20_000
_MAX_SCALAR = 10_000
_MAX_DEPTH = 50


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        RunFormatError: If the file cannot be read, holds something else, or more than any configuration.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise RunFormatError(f"{path} is longer than {_MAX_BYTES:,} characters: it is no run's configuration")
        _check_size(path, text)
        content = yaml.safe_load(text)
    # Dates that do not exist, and integers of thousands of digits, are errors of Python's own.
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        if isinstance(error, RunFormatError):
            raise
        raise RunFormatError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(content, dict):
        raise RunFormatError(f"{path}: expected a mapping, found {type(content).__name__}")
    return content


def _check_size(path: Path, text: str) -> None:
    """Refuse what is nested too deep, or has too many entries when aliases are counted as what they stand for."""
    sizes: dict[str | None, int] = {}
    # Anchor, and number of entries so far, of what is begun and not yet ended; the stream and the document are two.
    begun: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, yaml.SafeLoader):
        size = 0
        if isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = begun.pop()
            sizes[anchor] = size
        elif isinstance(event, yaml.AliasEvent):  # of what is not ended yet: of the value that it stands in
            size = sizes.get(event.anchor, _MAX_ENTRIES + 1)
        elif isinstance(event, yaml.ScalarEvent):  # a number of many digits would take longer than all others
            size = sizes[event.anchor] = 1 if len(event.value) <= _MAX_SCALAR else _MAX_ENTRIES + 1
        around, before = begun[-1]
        begun[-1] = around, before + size
        if before + size > _MAX_ENTRIES or len(begun) > _MAX_DEPTH:
            raise RunFormatError(
                f"{path}: expected a run's configuration, of at most {_MAX_ENTRIES:,} entries of {_MAX_SCALAR:,} "
                f"characters, {_MAX_DEPTH} levels deep"
            )
