"""JSON objects in files that appear whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_attr.errors import StorageError
from lit_attr.files.publish import publish


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
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise StorageError(f"{path} is damaged: expected an object, found {type(content).__name__}")
    return content
