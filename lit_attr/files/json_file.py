"""JSON objects in files that appear whole or not at all, and are checked when they are read."""

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from lit_attr.errors import StorageError, few, shown
from lit_attr.files.publish import publish, reading

_Kind = TypeVar("_Kind")
# The largest file of ours, a generation of 100,000 frozen parts, is a tenth of it.
_MAX_BYTES = 1 << 28


def publish_json(path: Path, content: Mapping[str, Any], *, replace: bool) -> None:
    """Write a JSON object: whole or not at all; arguments and errors as for `publish`."""
    text = json.dumps(dict(content), indent=1).encode()
    publish(path, lambda file: file.write(text), replace=replace)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        StorageError: If it is missing or damaged.
    """
    try:
        content = from_json(_read(path))
    except ValueError as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise StorageError(f"{path} is damaged: expected an object, found {type(content).__name__}")
    return content


def read_object(path: Path, kind: type[_Kind]) -> _Kind:
    """A JSON object as a dataclass.

    Args:
        path: The file.
        kind: The dataclass; its types, and the bounds of annotated ones, are checked.

    Raises:
        StorageError: If the file is missing or damaged.
    """
    return parse_object(_read(path), kind, path)


def parse_object(text: str | bytes, kind: type[_Kind], path: Path) -> _Kind:
    """JSON text as a dataclass; `path` is the file that it is from, the rest as for `read_object`."""
    try:
        adapter: TypeAdapter[_Kind] = _adapter(kind)  # type: ignore[arg-type] # a class is hashable
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors(include_url=False, include_context=False)]
        raise StorageError(f"{path} is damaged: {few(problems, 2)}") from error


@cache
def _adapter(kind: type[_Kind]) -> TypeAdapter[_Kind]:
    return TypeAdapter(kind)


def _describe(problem: Mapping[str, Any]) -> str:
    text = ".".join(map(str, problem["loc"])) + ": " * bool(problem["loc"]) + problem["msg"]
    if problem["type"] in ("missing", "json_invalid"):
        return text
    return f"{text}, found {shown(problem['input'])}"


def _read(path: Path) -> bytes:
    with reading(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > _MAX_BYTES:
            raise StorageError(f"{path} is damaged: expected at most {_MAX_BYTES} bytes, found {size}")
        return file.read()
