"""`lit-attr export`: a result in the formats of other tools."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lit_attr.cli.arguments import add_place, add_result, add_tokenizer, check_keys, finite
from lit_attr.errors import ConfigurationError
from lit_attr.files.roots import user_path
from lit_attr.topology.words import METRICS, PER, STRONGEST_FILE, ResultDtype

if TYPE_CHECKING:
    from lit_attr.query.explorer import Explorer

# Format to the name of its file or folder, beside the result; but for the strongest edges, which are a result of their
# own, none of them is that of a harvest's own result.
_NAMES = {
    **{"safetensors": "safetensors", "parquet": "edges.parquet", "graphml": "subgraph.graphml"},
    **{"dense": "dense.pt", "compact": "compact.pt", "strongest": STRONGEST_FILE},
}
# What is written to no file.
_WANDB = "wandb"
# Options that only some formats have.
_BELONGS = {
    "safetensors": ("shard_mb", "out", "overwrite"),
    "parquet": ("per", "k", "metric", "tokenizer", "out", "overwrite"),
    "graphml": ("k", "metric", "keys", "depth", "threshold", "layer", "tokenizer", "out", "overwrite"),
    "dense": ("out",),
    "compact": ("dtype", "out"),
    "strongest": ("k", "out", "overwrite"),
    _WANDB: ("project",),
}


def run(arguments: Sequence[str]) -> None:
    """Export a result, and print which files were written.

    Args:
        arguments: Words of the command line behind `export`.

    Raises:
        RunNotFoundError: If there is no such result.
        ConfigurationError: If an option does not belong to the format, or a library is not installed.
        EdgeNotFoundError: If a key is not in the harvest.
        KeyFormatError: If a key is malformed.
        NotHeldError: If the result holds its strongest edges alone, and the format needs others.
        StorageError: If the export exists already, or cannot be written.
    """
    options = _parser().parse_args(arguments)
    _refuse_foreign_options(options)
    check_keys(options.keys or ())
    # torch is imported only now: help and mistakes answer at once.
    from lit_attr.cli.open_result import open_result

    given = {name: getattr(options, name) for name in _BELONGS[options.to] if getattr(options, name) is not None}
    explorer = open_result(options.run, options.out_dir, options.subrun_id, given.pop("tokenizer", None))
    if options.to == _WANDB:
        from lit_attr.export.artifact import export_wandb

        print(export_wandb(explorer.storage, explorer.path, **given))
        return
    given.setdefault("out", explorer.path.parent / _NAMES[options.to])
    if (options.to == "dense" or options.dtype == "float32") and explorer.storage.rounding is not None:
        print(f"lit-attr: {explorer.storage.rounding}; the export has these numbers in float32", file=sys.stderr)
    for written in _export(options.to, explorer, **given):
        print(written)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-attr export",
        description="Write a result for other tools: all its tensors as sharded safetensors, its strongest "
        "edges as a parquet table, the graph around some keys as GraphML; in the dense form, which goodfire-ai/spd "
        "reads, or in the compact one; its strongest edges alone as a file that answers questions without it; or log "
        "its file as a wandb artifact.",
    )
    add_result(parser)
    parser.add_argument("--to", choices=tuple(_BELONGS), required=True, help="the format")
    parser.add_argument("--out", type=user_path, help="file, or folder of safetensors; default: beside the result")
    parser.add_argument(
        "--overwrite", action="store_true", default=None, help="replace what an earlier export has written"
    )
    add_place(parser)
    add_tokenizer(parser)
    parser.add_argument(
        "--dtype",
        choices=get_args(ResultDtype),
        help="compact: type of the sums of edges into components; default: as they are",
    )
    parser.add_argument("--shard_mb", type=finite, help="safetensors: megabytes of a shard at most; default: 1000")
    parser.add_argument("--per", choices=PER, help="parquet: k edges of each what; default: pair")
    parser.add_argument(
        "--k",
        type=int,
        help="parquet: how many edges, default 100; graphml: edges per node, default 3; strongest: edges that are kept "
        "of each list, default 64",
    )
    parser.add_argument("--metric", choices=METRICS, help="parquet, graphml; default: attr")
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="graphml: where to begin, such as 0.mlp.up:5")
    parser.add_argument("--depth", type=int, help="graphml: edges away from a key at most; default: 2")
    parser.add_argument("--threshold", type=finite, help="graphml: smallest normalised magnitude; default: 0")
    parser.add_argument("--layer", action="append", help="graphml: only this layer, or pattern; may be repeated")
    parser.add_argument("--project", help="wandb: the project; default: wandb's own")
    return parser


def _refuse_foreign_options(options: argparse.Namespace) -> None:
    own = _BELONGS[options.to]
    for name in sorted({name for names in _BELONGS.values() for name in names if name not in own}):
        if getattr(options, name) is not None:
            has = ", ".join(f"--{known}" for known in own)
            raise ConfigurationError(f"--{name} is no option of --to {options.to}, which has {has}")
    if options.to == "graphml" and not options.keys:
        raise ConfigurationError("--to graphml needs --keys: the graph is drawn around them")


def _export(
    to: str,
    explorer: "Explorer",
    out: Path,
    *,
    overwrite: bool = False,
    **given: Any,  # noqa: ANN401 - options of the format
) -> Sequence[Path]:
    if to in ("dense", "compact"):
        from lit_attr.export.form import export_form

        return [export_form(explorer.storage, out, compact=to == "compact", **given)]
    if to == "safetensors":
        from lit_attr.export.tensors import export_safetensors

        return export_safetensors(explorer.storage, out, **given, overwrite=overwrite)
    if to == "parquet":
        from lit_attr.export.table import export_parquet

        return [export_parquet(explorer, out, **given, overwrite=overwrite)]
    if to == "strongest":
        from lit_attr.query.strongest_build import write_strongest
        from lit_attr.storage.blocks import Blocks

        return [write_strongest(Blocks(explorer.storage), out, **given, overwrite=overwrite)]
    from lit_attr.export.graph import export_graphml

    graph = explorer.subgraph(layers=given.pop("layer", ()), **given)
    return [export_graphml(explorer, out, graph, overwrite=overwrite)]
