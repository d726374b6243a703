"""Parquet: the strongest edges as a table, written row group by row group."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lit_attr.export.description import describe
from lit_attr.files.output import Product, write_file
from lit_attr.optional import require
from lit_attr.query.explorer import Explorer
from lit_attr.query.strongest_edges import Edges
from lit_attr.topology.words import AttrMetric, Per

# Gives the text of a token, by layer and index.
_TokenText = Callable[[str, int], str | None]
# Rows that are written together, at least; and as many as one layer's tile of targets has.
_ROW_GROUP = 1 << 17
_LAYOUT = "lit_attr.edges"
# Columns that say how sure values are.
_N_ESTIMATES = 4
_PRODUCT = Product("a table of lit-attr export", b"PAR1", _LAYOUT.encode())


def export_parquet(
    explorer: Explorer,
    path: Path,
    *,
    k: int = 100,
    per: Per = "pair",
    metric: AttrMetric = "attr",
    overwrite: bool = False,
) -> Path:
    """Write the strongest edges as a parquet file, in memory that does not grow with the result.

    Columns are `source_layer`, `source_index`, `source_token`, `target_layer`, `target_index`, `target_token`,
    `metric`, `value_raw`, `value_normalized`, their standard errors `standard_error_raw` and
    `standard_error_normalized`, `n_groups`, the effective number of groups of batches in which the source occurred, and
    `few_groups`, whether these are too few for a standard error. What is not known is null. The file's metadata say
    which result it is from, and under `not_harvested` how many components of each layer cannot appear as targets, since
    they were none of the harvest.

    Args:
        explorer: The result that is exported.
        path: Path of the file; it must not exist, unless it is replaced.
        k: How many edges are written: those of the largest normalised magnitudes, whatever their sign.
        per: Whether `k` edges of each pair of layers are written, or of each target.
        metric: `attr` or `attr_abs`.
        overwrite: Whether an earlier export of this format may be replaced.

    Returns:
        `path`.

    Raises:
        ConfigurationError: If an option is not understood, the metric was not harvested, or pyarrow is not installed.
        NotHeldError: If the result holds its strongest edges alone, and not all of these.
        StorageError: If the file exists already, cannot be written, or a value is not finite.
    """
    edges = explorer.strongest(per, k=k, metric=metric)
    arrow, parquet = require("pyarrow", "export"), require("pyarrow.parquet", "export")
    metadata = {**describe(explorer.storage, _LAYOUT), "edges": f"the {k} strongest of each {per}"}
    schema = _schema(arrow).with_metadata(metadata)

    def write(file: BinaryIO) -> None:
        with parquet.ParquetWriter(file, schema) as writer:
            for group in _groups(edges):
                batches = [arrow.record_batch(_columns(part, metric, explorer.token), schema) for part in group]
                writer.write_table(arrow.Table.from_batches(batches, schema))

    write_file(path, write, _PRODUCT, overwrite=overwrite)
    return path


def _schema(arrow: Any) -> Any:  # noqa: ANN401 - of pyarrow
    text, index, value = arrow.string(), arrow.int32(), arrow.float32()
    fields = [
        arrow.field(f"{side}_{name}", kind, nullable=name == "token")
        for side in ("source", "target")
        for name, kind in (("layer", text), ("index", index), ("token", text))
    ]
    values = [("metric", text), ("value_raw", value), ("value_normalized", value)]
    errors = [("standard_error_raw", value), ("standard_error_normalized", value), ("n_groups", value)]
    return arrow.schema(
        [
            *fields,
            *(arrow.field(*named, nullable=False) for named in values),
            *(arrow.field(*named) for named in (*errors, ("few_groups", arrow.bool_()))),
        ]
    )


def _groups(edges: Iterable[Edges]) -> Iterator[list[Edges]]:
    group: list[Edges] = []
    for part in edges:
        group.append(part)
        if sum(len(known.raw) for known in group) >= _ROW_GROUP:
            yield group
            group = []
    yield group


def _columns(edges: Edges, metric: AttrMetric, token: _TokenText) -> list[Any]:
    """The columns of a record batch, in the schema's order."""
    n_edges = len(edges.raw)
    source_layers = np.array(edges.source_layers, dtype=object)[edges.source_places]
    target_layers = np.full(n_edges, edges.target_layer, dtype=object)
    columns: list[Any] = []
    for layers, indices in ((source_layers, edges.sources), (target_layers, edges.targets)):
        columns += [layers, indices.astype(np.int32), _texts(layers, indices, token)]
    columns += [np.full(n_edges, metric, dtype=object), edges.raw, edges.normalized]
    if edges.estimates is None:
        return [*columns, *[np.full(n_edges, None, dtype=object)] * _N_ESTIMATES]
    known = edges.estimates
    numbers = [column.astype(object) for column in (known.raw, known.normalized, known.n_groups)]
    for column in numbers:
        column[np.isnan(column.astype(np.float32))] = None
    return [*columns, *numbers, known.few_groups]


def _texts(layers: np.ndarray, indices: np.ndarray, token: _TokenText) -> np.ndarray:
    keys = list(zip(layers.tolist(), indices.tolist(), strict=True))
    known = {key: token(*key) for key in set(keys)}
    return np.array([known[key] for key in keys], dtype=object)
