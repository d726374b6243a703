"""`lit-attr plot`: pictures of a result."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_attr.cli.arguments import add_place, add_result, add_tokenizer, check_keys, finite
from lit_attr.cli.find_result import find_harvest
from lit_attr.files.roots import user_path
from lit_attr.topology.words import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Pictures of the folder of a harvest, rather than of its result.
_OF_HARVESTS = ("convergence", "stability")


def run(arguments: Sequence[str]) -> None:
    """Draw a picture, and print its name.

    Args:
        arguments: Words of the command line behind `plot`.

    Raises:
        RunNotFoundError: If there is no such result.
        ConfigurationError: If an option makes no sense, or matplotlib is not installed.
        EdgeNotFoundError: If a key is not in the harvest.
        KeyFormatError: If a key is malformed.
        StorageError: If the picture exists already, or cannot be written.
    """
    options = _parser().parse_args(arguments)
    check_keys(getattr(options, "keys", ()))
    # torch and matplotlib are imported only now: help and mistakes answer at once.
    from lit_attr.plots.style import check_place, save

    check_place(options.out, overwrite=options.overwrite)
    print(save(_figure(options), options.out, overwrite=options.overwrite))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lit-attr plot", description="Draw a result, for a paper.")
    add_result(parser)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=user_path, required=True, metavar="FILE", help="of the picture: .png or .svg")
    common.add_argument("--overwrite", action="store_true", help="replace an earlier picture of this command")
    add_place(common)
    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("--metric", choices=METRICS, default="attr", help="default: attr")
    add_tokenizer(asked)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="PICTURE")
    texts = {
        "mass": "the edge mass between layers",
        "component": "a component's top sources and targets",
        "subgraph": "the strongest edges around some keys, layer above layer",
        "volcano": "how sure edges are against how large they are",
        "convergence": "how standard errors shrink, from the committed parts of a harvest",
        "stability": "how the strongest sources settle, from the committed parts of a harvest",
    }
    pictures = {
        name: kinds.add_parser(
            name, parents=[common] if name in _OF_HARVESTS else [common, asked], help=text, description=text
        )
        for name, text in texts.items()
    }
    pictures["component"].add_argument("keys", metavar="KEY", nargs=1)
    pictures["component"].add_argument("--k", type=int, default=10, help="how many of each sign; default: 10")
    pictures["subgraph"].add_argument("keys", metavar="KEY", nargs="+")
    pictures["subgraph"].add_argument("--k", type=int, default=3, help="edges of a node; default: 3")
    pictures["subgraph"].add_argument("--depth", type=int, default=2, help="edges away from a key; default: 2")
    pictures["subgraph"].add_argument("--threshold", type=finite, default=0.0, help="smallest magnitude; default: 0")
    pictures["volcano"].add_argument("--k", type=int, default=6, help="edges that are named; default: 6")
    for name in ("subgraph", "volcano"):
        pictures[name].add_argument(
            "--layer", dest="layers", action="append", default=[], help="only this layer, or pattern; may be repeated"
        )
    pictures["convergence"].add_argument("--k", type=int, default=100, help="edges of two layers; default: 100")
    pictures["stability"].add_argument("--k", type=int, default=10, help="sources that are compared; default: 10")
    pictures["stability"].add_argument("--targets", type=int, default=20, help="strongest targets; default: 20")
    return parser


def _figure(options: argparse.Namespace) -> "Figure":
    from lit_attr.plots import figures

    if options.kind in _OF_HARVESTS:
        folder = find_harvest(options.run, options.out_dir, options.subrun_id)
        if options.kind == "convergence":
            return figures.convergence_figure(folder, k=options.k)
        return figures.stability_figure(folder, k=options.k, n_targets=options.targets)
    from lit_attr.cli.open_result import open_result

    explorer = open_result(options.run, options.out_dir, options.subrun_id, options.tokenizer)
    if options.kind == "mass":
        return figures.mass_figure(explorer, metric=options.metric)
    if options.kind == "component":
        return figures.component_figure(explorer, options.keys[0], k=options.k, metric=options.metric)
    if options.kind == "volcano":
        return figures.volcano_figure(explorer, k=options.k, metric=options.metric, layers=options.layers)
    names = ("k", "depth", "threshold", "metric", "layers")
    return figures.subgraph_figure(explorer, options.keys, **{name: getattr(options, name) for name in names})
