"""`lit-attr query`: questions to a stored harvest."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_attr.errors import EdgeNotFoundError, RunNotFoundError, StorageError
from lit_attr.topology.address import OUTPUT, ComponentKey

if TYPE_CHECKING:
    from lit_attr.storage.storage import DatasetAttributionStorage

_SIGNIFICANT = 5


def run(arguments: Sequence[str]) -> None:
    """Answer a question on standard output.

    Args:
        arguments: Those after `query`.

    Raises:
        RunNotFoundError: If there is no such stored harvest.
        EdgeNotFoundError: If a key, or an edge, is not in it.
        KeyFormatError: If a key is malformed.
    """
    options = _parser().parse_args(arguments)
    keys = [ComponentKey.parse(key) for key in options.keys]
    # torch is imported only now: help and malformed keys answer at once.
    from lit_attr.storage.ids import from_ranges

    path, storage = _open(options.run, options.out_dir)
    answer = {"file": str(path), "n_tokens": storage.n_tokens_processed, "metric": options.metric}
    if options.question == "edge":
        answer |= _edge(storage, options)
    else:
        answer |= _list(storage, options, keys[0])
    covered = (storage.provenance or {}).get("coverage")
    if covered is not None and not covered["complete"]:
        answer["partial"] = f"{len(from_ranges(covered['batches']))} of {covered['n_batches']} batches"
        print(f"lit-attr: PARTIAL result, of {answer['partial']}", file=sys.stderr)
    print(json.dumps(answer, indent=2)) if options.json else _print_table(answer)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-attr query",
        description="Ask a stored harvest. A KEY is <layer>:<index>, such as 0.mlp.up:5, embed:17 or output:17.",
    )
    parser.add_argument(
        "run", metavar="RUN", help="a run id or run folder (its newest harvest is asked), or a dataset_attributions.pt"
    )
    questions = parser.add_subparsers(dest="question", required=True, metavar="QUESTION")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--metric", choices=("attr", "attr_abs"), default="attr", help="default: attr")
    common.add_argument("--json", action="store_true", help="machine-readable answer")
    common.add_argument("--out_dir", help="root of results; default: $LIT_ATTR_OUT_DIR, else $SPD_OUT_DIR, else ./out")
    for name, text in (("sources", "what feeds KEY most"), ("targets", "what KEY feeds most")):
        question = questions.add_parser(name, parents=[common], help=text, description=text)
        question.add_argument("keys", metavar="KEY", nargs=1)
        question.add_argument("--k", type=int, default=10, help="how many; default: 10")
        question.add_argument("--sign", choices=("positive", "negative"), default="positive", help="default: positive")
    edge = questions.add_parser("edge", parents=[common], help="the attribution of one edge")
    edge.add_argument("keys", metavar=("SOURCE", "TARGET"), nargs=2)
    return parser


def _open(run: str, out_dir: str | None) -> "tuple[Path, DatasetAttributionStorage]":
    from lit_attr.cli.locate import run_id_of
    from lit_attr.storage.repo import MERGED_FILE, AttributionRepo, run_folder
    from lit_attr.storage.storage import DatasetAttributionStorage

    path = Path(run)
    if os.path.isfile(path / MERGED_FILE):
        path = path / MERGED_FILE
    if os.path.isfile(path):
        return path, DatasetAttributionStorage.load(path)
    run_id = run_id_of(run)
    repo = AttributionRepo.open(run_id, out_dir)
    if repo is None:
        raise RunNotFoundError(f"no stored harvest of {run!r}: no such file, and none in {run_folder(run_id, out_dir)}")
    return repo.path, repo.get_attributions()


def _list(storage: "DatasetAttributionStorage", options: argparse.Namespace, key: ComponentKey) -> dict[str, Any]:
    from lit_attr.storage.query import Query

    query, text, asks_sources = Query(storage), options.keys[0], options.question == "sources"
    if not (query.has_target(key) if asks_sources else query.has_source(key)):
        why = query.why_unknown(key, "target" if asks_sources else "source")
        raise EdgeNotFoundError(f"no {options.question} of {text}: {why}")
    if asks_sources and key.layer == OUTPUT and options.metric == "attr_abs":
        raise EdgeNotFoundError(f"no sources of {text}: attributions to the output have no attr_abs")
    ask = storage.get_top_sources if asks_sources else storage.get_top_targets
    entries = ask(text, k=options.k, sign=options.sign, metric=options.metric)
    return {
        "question": options.question,
        "key": text,
        "sign": options.sign,
        "entries": [asdict(entry) for entry in entries],
        "was_harvested": not asks_sources or query.was_harvested(key),
    }


def _edge(storage: "DatasetAttributionStorage", options: argparse.Namespace) -> dict[str, Any]:
    source, target = options.keys
    return {
        "question": "edge",
        "source": source,
        "target": target,
        "raw": storage.get_attribution(source, target, metric=options.metric),
        "normalized": storage.get_attribution(source, target, metric=options.metric, normalized=True),
    }


def _print_table(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    def columns(*names: str) -> list[Column]:
        return [Column(name, overflow="fold") for name in names]  # on a narrow terminal nothing is cut off

    if answer["question"] == "edge":
        table = Table(*columns("source", "target", "raw", "normalised"), title=f"{answer['metric']} of one edge")
        table.add_row(answer["source"], answer["target"], *(_number(answer[name]) for name in ("raw", "normalized")))
    else:
        title = f"strongest {answer['sign']} {answer['question']} of {answer['key']} ({answer['metric']}, normalised)"
        table = Table("#", *columns(answer["question"].removesuffix("s"), "value"), title=title)
        for place, entry in enumerate(answer["entries"], start=1):
            table.add_row(str(place), entry["component_key"], _number(entry["value"]))
    table.caption = f"{answer['n_tokens']:,} tokens"
    if not answer.get("was_harvested", True):
        table.caption += "; this component was no target of the harvest, so that its attributions are not known"
    try:
        Console().print(table)
    except OSError as error:
        raise StorageError(f"cannot write the answer: {error}") from error


def _number(value: float) -> str:
    return f"{value:+.{_SIGNIFICANT}g}"
