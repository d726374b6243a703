"""GraphML: a part of the attribution graph for networkx, Gephi, Cytoscape and the like."""

from pathlib import Path

from lit_attr.export.description import describe
from lit_attr.files.output import Product, write_file
from lit_attr.optional import require
from lit_attr.query.answers import Subgraph
from lit_attr.query.explorer import Explorer

_LAYOUT = "lit_attr.subgraph"
_PRODUCT = Product("a graph of lit-attr export", b"<?xml", f">{_LAYOUT}<".encode())


def export_graphml(
    explorer: Explorer,
    path: Path,
    subgraph: Subgraph,
    *,
    overwrite: bool = False,
) -> Path:
    """Write edges of a result as GraphML.

    Nodes are keys such as `0.mlp.up:5`, with `layer`, `index`, `token` where there is one, `is_key`, and
    `was_harvested`, which is false where what feeds a node was not measured. Edges have `value_raw`,
    `value_normalized` and `metric`, and where they are known `standard_error_raw`, `standard_error_normalized`,
    `n_groups` and `few_groups`, as in a table of edges. The graph's own data say which result it is from.

    Args:
        explorer: The result that the edges are from.
        path: Path of the file; it must not exist, unless it is replaced.
        subgraph: An answer of the explorer; its keys are written even if no edge has them.
        overwrite: Whether an earlier export of this format may be replaced.

    Returns:
        `path`.

    Raises:
        ConfigurationError: If networkx is not installed.
        StorageError: If the file exists already, or cannot be written.
    """
    networkx = require("networkx", "export")
    about = describe(explorer.storage, _LAYOUT)
    graph = networkx.DiGraph(**{name: _legal(text) for name, text in about.items()})
    for node in subgraph.nodes:
        token = {} if node.token is None else {"token": _legal(node.token)}
        marks = {"is_key": node in subgraph.keys, "was_harvested": node.was_harvested}
        graph.add_node(node.component_key, layer=node.layer, index=node.component_idx, **marks, **token)
    for edge in subgraph.edges:
        ends = edge.source.component_key, edge.target.component_key
        known = explorer.edge(*ends, metric=subgraph.metric)
        sure = {
            "standard_error_raw": known.raw_standard_error,
            "standard_error_normalized": known.normalized_standard_error,
            "n_groups": known.n_groups,
            "few_groups": known.few_groups,
        }
        values = {"value_raw": known.raw, "value_normalized": known.normalized, "metric": subgraph.metric}
        graph.add_edge(*ends, **values, **{name: value for name, value in sure.items() if value is not None})
    write_file(path, lambda file: networkx.write_graphml(graph, file), _PRODUCT, overwrite=overwrite)
    return path


def _legal(text: str) -> str:
    """The text with characters that XML cannot hold, or changes, written as Python would."""
    return "".join(character if _is_legal(ord(character)) else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _is_legal(code: int) -> bool:
    return code in (0x9, 0xA) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
