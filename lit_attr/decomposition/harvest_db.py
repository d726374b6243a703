"""Which components ever fired, from the `harvest.db` of a goodfire-ai/spd harvest."""

import json
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import torch
from jaxtyping import Bool
from torch import Tensor

from lit_attr.decomposition.reference import RunReference
from lit_attr.errors import RunFormatError, shown
from lit_attr.files.seal import digest_of

_INDEX = re.compile(r"[0-9]{1,12}")


def file_digest(path: Path) -> str:
    """SHA-256 of a `harvest.db`, in hexadecimal.

    Raises:
        RunFormatError: If it cannot be read.
    """
    _check_exists(path)
    try:
        with path.open("rb") as file:
            return digest_of(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise RunFormatError(f"cannot read {path}: {error}") from error


def alive_in_harvest(
    path: Path, paths: Mapping[str, str], n_components: Mapping[str, int], run_id: str
) -> dict[str, Bool[Tensor, " component"]]:
    """Read which components have a firing density above zero; those that never fired have no row in the file.

    Args:
        path: The SQLite file.
        paths: Canonical layer to the path of its matrix in the target model.
        n_components: Canonical layer to its number of components.
        run_id: Id of the decomposition run that the harvest must belong to.

    Returns:
        Canonical layer to mask.

    Raises:
        RunFormatError: If the file is missing, damaged, or of another run.
    """
    _check_exists(path)
    n_rows = sum(n_components.values())
    try:
        # `immutable` takes no locks, which network file systems may not have.
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?immutable=1", uri=True)) as connection:
            _check_tables(path, connection)
            rows = connection.execute("SELECT component_key, firing_density FROM components").fetchmany(n_rows + 1)
            found = connection.execute("SELECT value FROM config WHERE key = 'method_config' LIMIT 1").fetchone()
    except (sqlite3.Error, UnicodeError) as error:  # the latter for damaged bytes in its own message
        raise RunFormatError(f"cannot read the harvest database {path}: {error}") from error
    _check_run(path, found[0] if found else None, run_id)
    if len(rows) > n_rows:
        raise RunFormatError(f"{path} is the harvest of another model: it has more components than the run's {n_rows}")
    layers = {module_path: layer for layer, module_path in paths.items()}
    alive = {layer: torch.zeros(count, dtype=torch.bool) for layer, count in n_components.items()}
    for key, density in rows:
        if not isinstance(key, str) or not isinstance(density, int | float):
            raise RunFormatError(
                f"{path}: expected component keys and firing densities, found {shown(key)} and {shown(density)}"
            )
        module_path, _, index = key.rpartition(":")
        layer = layers.get(module_path)
        if layer is None or not _INDEX.fullmatch(index) or int(index) >= n_components[layer]:
            raise RunFormatError(
                f"{path} is the harvest of another model: it has a component {shown(key)}, the run has not"
            )
        alive[layer][int(index)] = density > 0
    return alive


def _check_tables(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse views, which may have rows without end."""
    kinds = dict(connection.execute("SELECT name, type FROM sqlite_master WHERE name IN ('components', 'config')"))
    if odd := [name for name in ("components", "config") if kinds.get(name) != "table"]:
        raise RunFormatError(f"cannot read the harvest database {path}: no such table: {odd[0]}")


def _check_run(path: Path, method_config: object, run_id: str) -> None:
    """Refuse a harvest that says it is of another run."""
    try:
        method = json.loads(method_config or "{}")  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError) as error:
        raise RunFormatError(f"{path}: method_config is no JSON: {error}") from error
    harvested = RunReference.match(str(method.get("wandb_path") or "")) if isinstance(method, Mapping) else None
    if harvested is not None and harvested.run_id != run_id:
        raise RunFormatError(f"{path} is the harvest of run {harvested.run_id}, expected {run_id}")


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise RunFormatError(f"no harvest database at {path}")
