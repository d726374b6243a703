"""`lit-attr compare`: two results, edge by edge."""

import argparse
import json
import os
from collections.abc import Sequence

from lit_attr.cli.arguments import add_tokenizer, finite
from lit_attr.files.roots import DEFAULT_ROOT, user_path
from lit_attr.topology.words import METRICS

# As in `lit_attr.query.compare_answers` and `lit_attr.query.correspondence`, which import torch.
_ORDERS = ("difference", "z")
_MATCHES = ("index",)


def run(arguments: Sequence[str]) -> None:
    """Compare two results on standard output.

    Args:
        arguments: Words of the command line behind `compare`.

    Raises:
        RunNotFoundError: If there is no such result.
        ConfigurationError: If components do not correspond, an option is out of its range, or a library is not
            installed.
        NotHeldError: If a result holds its strongest edges alone.
        StorageError: If the table exists already, or cannot be written.
    """
    options = _parser().parse_args(arguments)
    # torch is imported only now: help answers at once.
    if options.plot is not None:
        from lit_attr.plots.style import check_place, save

        check_place(options.plot, overwrite=options.overwrite)
    from lit_attr.cli.open_result import name_of, open_result
    from lit_attr.query.compare import compare

    explorers = [open_result(run, options.out_dir, None, options.tokenizer) for run in options.runs]
    names = [name_of(explorer, run, None) for explorer, run in zip(explorers, options.runs, strict=True)]
    given = ("metric", "k", "level", "sort", "match", "layers", "sources", "targets")
    answer = compare(*explorers, **{name: getattr(options, name) for name in given})
    if options.plot is not None:
        from lit_attr.plots.figures import comparison_figure

        print(save(comparison_figure(answer, names), options.plot, overwrite=options.overwrite))
    elif options.to is not None:
        from lit_attr.export.compared import export_compared

        print(export_compared(answer, names, options.to, overwrite=options.overwrite))
    elif options.json:
        from lit_attr.query.answer_json import plain

        head = {"a": vars(names[0]), "b": vars(names[1])}
        print(json.dumps({**head, **plain(answer)}, indent=2, allow_nan=False))
    else:
        from lit_attr.cli.compare_tables import print_comparison

        print_comparison(answer, names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-attr compare",
        description="Compare two results of one decomposition, A and B: which edges differ, in normalised values, with "
        "the standard error of the difference, controlled for the number of edges that are tested (Benjamini and "
        "Hochberg); the mass of layers side by side; and how far values correlate.",
    )
    for name in ("RUN_A", "RUN_B"):
        parser.add_argument(
            "runs",
            metavar=name,
            type=os.path.expanduser,
            action="append",
            help="a run id, run folder or reference, the folder of a harvest, or a file",
        )
    parser.add_argument("--metric", choices=METRICS, default="attr", help="default: attr")
    parser.add_argument("-k", "--k", type=int, default=20, help="how many edges are listed; default: 20")
    parser.add_argument("--q", dest="level", type=finite, default=0.05, help="false discovery rate; default: 0.05")
    parser.add_argument("--sort", choices=_ORDERS, default="difference", help="default: difference")
    parser.add_argument(
        "--match", choices=_MATCHES, help="index: components of one index are the same, whatever is recorded of them"
    )
    for name, which in (("layers", "at either end"), ("sources", "as source"), ("targets", "as target")):
        text = f"only edges with such a layer {which}; names, or patterns such as '*.attn.o'"
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="LAYER", help=text)
    parser.add_argument("--json", action="store_true", help="machine-readable answer")
    parser.add_argument("--to", type=user_path, metavar="FILE", help="write the listed edges: .csv or .parquet")
    parser.add_argument("--plot", type=user_path, metavar="FILE", help="draw them and the layers: .png or .svg")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier --to or --plot has written")
    add_tokenizer(parser)
    parser.add_argument("--out_dir", help=f"root of results; default: {DEFAULT_ROOT}")
    return parser
