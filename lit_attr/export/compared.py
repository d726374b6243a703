"""The edges of a comparison as a table: CSV or parquet."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lit_attr.errors import ConfigurationError
from lit_attr.files.output import Product, write_file
from lit_attr.optional import require
from lit_attr.query.answers import ENDS
from lit_attr.query.compare_answers import NUMBERS, Comparison, edge_row
from lit_attr.query.result_name import ResultName

_LAYOUT = "lit_attr.compared"
_HEADER = ",".join(f'"{name}"' for name in (*ENDS, *NUMBERS))
_PRODUCTS = {
    ".csv": Product("a table of lit-attr compare", b'"source","so', _HEADER[len('"source","so') :].encode()),
    ".parquet": Product("a table of lit-attr compare", b"PAR1", _LAYOUT.encode()),
}


def export_compared(answer: Comparison, names: Sequence[ResultName], path: Path, *, overwrite: bool = False) -> Path:
    """Write the edges of a comparison, best first; what is not known has no value.

    The metadata of a parquet file say which results were compared, and how many edges were tested.

    Args:
        answer: The comparison.
        names: Names of A and of B.
        path: Path of the file; its suffix decides.
        overwrite: Whether an earlier table of this kind may be replaced.

    Returns:
        `path`.

    Raises:
        ConfigurationError: If the suffix is neither .csv nor .parquet, or pyarrow is not installed.
        StorageError: If the file exists already, or cannot be written.
    """
    if path.suffix not in _PRODUCTS:
        raise ConfigurationError(f"a table's name ends in {' or '.join(_PRODUCTS)}, found {str(path)!r}")
    arrow = require("pyarrow", "export")
    rows = [edge_row(edge) for edge in answer.edges]
    kinds = [*((name, arrow.string()) for name in ENDS), *((name, arrow.float64()) for name in NUMBERS)]
    table = arrow.Table.from_pylist(rows, arrow.schema(kinds).with_metadata(_description(answer, names)))

    def write(file: BinaryIO) -> None:
        if path.suffix == ".csv":
            require("pyarrow.csv", "export").write_csv(table, file)
        else:
            require("pyarrow.parquet", "export").write_table(table, file)

    write_file(path, write, _PRODUCTS[path.suffix], overwrite=overwrite)
    return path


def _description(answer: Comparison, names: Sequence[ResultName]) -> dict[str, str]:
    counts: dict[str, Any] = {
        name: value for name, value in vars(answer).items() if name not in ("edges", "masses", "metric", "sort")
    }
    results = {letter: json.dumps(vars(name)) for letter, name in zip("ab", names, strict=True)}
    return {"format": _LAYOUT, **results, "metric": answer.metric, "sort": answer.sort, "counts": json.dumps(counts)}
