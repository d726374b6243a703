"""`lit-attr plot`: pictures of a stored harvest."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_attr.cli.keys import check_keys
from lit_attr.cli.locate import STORED_HELP, add_place
from lit_attr.errors import StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run(arguments: Sequence[str]) -> None:
    """Draw a picture, and print its name.

    Args:
        arguments: Those after `plot`.

    Raises:
        RunNotFoundError: If there is no such stored harvest.
        ConfigurationError: If an option makes no sense, or matplotlib is not installed.
        EdgeNotFoundError: If a key is not in the harvest.
        KeyFormatError: If a key is malformed.
        StorageError: If the picture exists already, or cannot be written.
    """
    options = _parser().parse_args(arguments)
    check_keys(getattr(options, "keys", ()))
    # torch and matplotlib are imported only now: help and mistakes answer at once.
    from lit_attr.plots.style import check_format, save

    path = Path(options.out)
    check_format(path)
    if os.path.lexists(path) and not options.overwrite:
        raise StorageError(f"{path} exists already; --overwrite replaces it")
    print(save(_figure(options), path, options.overwrite))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lit-attr plot", description="Draw a stored harvest, for a paper.")
    parser.add_argument("run", metavar="RUN", help=STORED_HELP)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", required=True, metavar="FILE", help="of the picture: .png or .svg")
    common.add_argument("--overwrite", action="store_true", help="replace a picture that is there")
    add_place(common)
    metric = argparse.ArgumentParser(add_help=False)
    metric.add_argument("--metric", choices=("attr", "attr_abs"), default="attr", help="default: attr")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="PICTURE")
    texts = {
        "mass": "the edge mass between layers",
        "component": "a component's top sources and targets",
        "subgraph": "the strongest edges around some keys, layer above layer",
        "stability": "how the strongest sources settle, from the committed parts of a harvest",
    }
    found = {
        name: kinds.add_parser(
            name, parents=[common] if name == "stability" else [common, metric], help=text, description=text
        )
        for name, text in texts.items()
    }
    found["component"].add_argument("keys", metavar="KEY", nargs=1)
    found["component"].add_argument("--k", type=int, default=10, help="how many of each sign; default: 10")
    found["subgraph"].add_argument("keys", metavar="KEY", nargs="+")
    found["subgraph"].add_argument("--k", type=int, default=3, help="edges of a node; default: 3")
    found["subgraph"].add_argument("--depth", type=int, default=2, help="edges away from a key; default: 2")
    found["subgraph"].add_argument("--threshold", type=float, default=0.0, help="smallest magnitude; default: 0")
    found["subgraph"].add_argument(
        "--layer", dest="layers", action="append", default=[], help="only this layer, or pattern; may be repeated"
    )
    found["stability"].add_argument("--k", type=int, default=10, help="sources that are compared; default: 10")
    found["stability"].add_argument("--targets", type=int, default=20, help="strongest targets; default: 20")
    return parser


def _figure(options: argparse.Namespace) -> "Figure":
    from lit_attr.plots import figures

    if options.kind == "stability":
        from lit_attr.cli.locate import harvest_folder

        return figures.stability_figure(harvest_folder(options), options.k, options.targets)
    from lit_attr.cli.stored import open_stored

    explorer = open_stored(options.run, options.out_dir, options.subrun_id)
    if options.kind == "mass":
        return figures.mass_figure(explorer, options.metric)
    if options.kind == "component":
        return figures.component_figure(explorer, options.keys[0], options.k, options.metric)
    numbers = options.k, options.depth, options.threshold
    return figures.subgraph_figure(explorer, options.keys, *numbers, options.metric, options.layers)
