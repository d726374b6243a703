"""`lit-attr query`: questions to a result."""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lit_attr.cli.arguments import add_place, add_result, add_tokenizer, check_keys, finite
from lit_attr.errors import ConfigurationError
from lit_attr.topology.choice import check_count
from lit_attr.topology.words import ANY_SIGNS, EDGE_ORDERS, METRICS, SORTS, STATISTICS, WAYS

if TYPE_CHECKING:
    from lit_attr.query.explorer import Explorer


def run(arguments: Sequence[str]) -> None:
    """Answer a question on standard output.

    Args:
        arguments: Arguments after `query`.

    Raises:
        RunNotFoundError: If there is no such result.
        EdgeNotFoundError: If a key, or an edge, is not in it.
        KeyFormatError: If a key is malformed, or a token's text unknown or ambiguous.
        ConfigurationError: If an option is out of its range.
    """
    options = _parser().parse_args(arguments)
    check_keys(getattr(options, "keys", ()))
    # torch is imported only now: help and malformed keys answer at once.
    from lit_attr.cli.open_result import name_of, open_result

    explorer = open_result(options.run, options.out_dir, options.subrun_id, options.tokenizer)
    answer = options.ask(explorer, options)
    name, n_tokens = name_of(explorer, options.run, options.subrun_id), explorer.storage.n_tokens_processed
    if options.json:
        from lit_attr.query.answer_json import plain

        head = {"file": name.file, "result": vars(name), "n_tokens": n_tokens, "question": options.question}
        partial, rounding = explorer.storage.recorded.partial, explorer.storage.rounding
        notes = {"partial": partial, "rounding": rounding and rounding.plain}
        content = {**head, **{name: note for name, note in notes.items() if note}, **plain(answer)}
        print(json.dumps(content, indent=2, allow_nan=False))
    else:
        from lit_attr.cli.answer_tables import print_answer

        print_answer(answer, name, explorer.storage, getattr(options, "k", None) or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-attr query",
        description="Ask a result. A KEY is <layer>:<index>, such as 0.mlp.up:5, embed:17 or output:17; the "
        "layer may be a module path, such as h.0.mlp.c_fc:5, and a token may be given by its text: 'output:\" her\"'.",
    )
    add_result(parser)
    questions = parser.add_subparsers(dest="question", required=True, metavar="QUESTION")

    def question(name: str, text: str, ask: Callable[["Explorer", argparse.Namespace], Any]) -> argparse.ArgumentParser:
        parser = questions.add_parser(name, help=text, description=text)
        parser.set_defaults(ask=ask)
        parser.add_argument("--metric", choices=METRICS, default="attr", help="default: attr")
        parser.add_argument("--json", action="store_true", help="machine-readable answer")
        add_tokenizer(parser)
        add_place(parser)
        return parser

    def ranked(parser: argparse.ArgumentParser, k: int, sign: str) -> None:
        parser.add_argument("--k", type=int, default=k, help=f"how many; default: {k}")
        parser.add_argument("--sign", choices=ANY_SIGNS, default=sign, help=f"both: by magnitude; default: {sign}")
        _scaled(parser)

    for name, text in (("sources", "what feeds KEY most"), ("targets", "what KEY feeds most")):
        ranking = question(name, text, _ask_ranking)
        ranking.add_argument("keys", metavar="KEY", nargs=1)
        ranked(ranking, 10, "positive")
        _sure(ranking)
    edge = question("edge", "the attribution of one edge", _ask_edge)
    edge.add_argument("keys", metavar="KEY", nargs=2, help="the source, and the target")
    matrix = question("matrix", "how much layers influence each other, or all edges between two layers", _ask_matrix)
    matrix.add_argument("pair", metavar="SOURCE_LAYER TARGET_LAYER", nargs="*", help="for all edges between two layers")
    matrix.add_argument("--statistic", choices=STATISTICS, help="of layers: sum of absolute values, or mean")
    matrix.add_argument("--k", type=int, help="of two layers: rows and columns of the table; default: 10")
    _scaled(matrix)
    edges = question("edges", "the strongest edges of each pair of layers, or of all", _ask_edges)
    ranked(edges, 5, "both")
    _sure(edges)
    edges.add_argument(
        "--by",
        choices=EDGE_ORDERS,
        default="pair",
        help="pair: k edges of each pair of layers; strength: the k strongest of all, best first; default: pair",
    )
    subgraph = question("subgraph", "the strongest edges around some KEYs", _ask_subgraph)
    subgraph.add_argument("keys", metavar="KEY", nargs="+")
    ranked(subgraph, 3, "both")
    subgraph.add_argument("--depth", type=int, default=2, help="edges away from a KEY at most; default: 2")
    subgraph.add_argument("--threshold", type=finite, default=0.0, help="smallest absolute value; default: 0")
    subgraph.add_argument("--direction", choices=WAYS, default="both", help="default: both, each by itself")
    return parser


def _sure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sort",
        choices=SORTS,
        default="value",
        help="lower: by the end of the 95 %% interval that is nearer to zero, without those that have zero in it; "
        "looks at all edges; default: value",
    )
    parser.add_argument(
        "--min_z", type=finite, default=0.0, help="only values so many standard errors away from zero; default: 0"
    )


def _how_sure(options: argparse.Namespace) -> dict[str, Any]:
    return {"sort": options.sort, "min_z": options.min_z}


def _scaled(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", action="store_true", help="raw sums instead of normalised values, in ranking too")
    parser.add_argument(
        "--layer",
        action="append",
        default=[],
        help="only this layer, or layers of a pattern such as '*.attn.o', or '[0-9]*' for components; may be repeated; "
        "of pairs of layers: those that have it at either end",
    )


def _ask_ranking(explorer: "Explorer", options: argparse.Namespace) -> object:
    ask = explorer.sources if options.question == "sources" else explorer.targets
    asked = {**_measure(options), **_how_sure(options)}
    return ask(options.keys[0], k=options.k, sign=options.sign, layers=options.layer, **asked)


def _ask_edge(explorer: "Explorer", options: argparse.Namespace) -> object:
    source, target = options.keys
    return explorer.edge(source, target, metric=options.metric)


def _ask_matrix(explorer: "Explorer", options: argparse.Namespace) -> object:
    if len(options.pair) == 0:
        if options.k is not None:
            raise ConfigurationError("matrix: --k is for the edges between two layers, which are not given")
        return explorer.matrix(statistic=options.statistic or "mass", **_measure(options), layers=options.layer)
    if len(options.pair) != 2 or options.layer or options.statistic:
        raise ConfigurationError(
            "matrix: expected no layer, or a source layer and a target layer without --layer and --statistic, found "
            f"{options.pair}"
        )
    options.k = 10 if options.k is None else options.k
    check_count("k", options.k)
    source, target = options.pair
    return explorer.block(source, target, **_measure(options))


def _ask_edges(explorer: "Explorer", options: argparse.Namespace) -> object:
    asked = {**_measure(options), **_how_sure(options)}
    return explorer.edges(k=options.k, by=options.by, sign=options.sign, layers=options.layer, **asked)


def _ask_subgraph(explorer: "Explorer", options: argparse.Namespace) -> object:
    return explorer.subgraph(
        options.keys,
        k=options.k,
        depth=options.depth,
        threshold=options.threshold,
        direction=options.direction,
        sign=options.sign,
        **_measure(options),
        layers=options.layer,
    )


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    return {"metric": options.metric, "normalized": not options.raw}
