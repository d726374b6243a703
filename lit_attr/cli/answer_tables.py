"""Answers of `lit-attr query` as tables."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from lit_attr.cli.answer_remarks import FEW_GROUPS, remarks
from lit_attr.query.answers import Edge, EdgeAnswer, Node, Ranking, StrongestEdges, Subgraph
from lit_attr.query.estimates import Estimated
from lit_attr.query.layer_answers import LayerBlock, LayerMatrix
from lit_attr.query.result_name import ResultName
from lit_attr.query.token_texts import quoted
from lit_attr.storage.file_content import Content

_SIGNIFICANT, _SIGNIFICANT_IN_MATRIX, _SIGNIFICANT_IN_ERROR = 5, 3, 2
# From here on numbers are shown with an exponent.
_LARGEST_PLAIN = 10**_SIGNIFICANT
# Characters of a column of a matrix, borders included.
_MATRIX_COLUMN = 13
_BORDERS, _LONGEST_NUMBER = 3, len("-1.23e+10")
_NOT_HARVESTED = "not harvested"


class AnswerConsole(Console):
    """Where answers are printed."""

    def on_broken_pipe(self) -> None:
        """Leave it to `main`, which treats all commands alike: rich would end the process with 1."""
        raise


def print_answer(answer: object, result: ResultName, content: Content, k: int) -> None:
    """Print a table, whose caption names the result.

    Args:
        answer: The answer to any question.
        result: The result that answered.
        content: What is in it.
        k: How many rows and columns of a block are shown.
    """
    console = AnswerConsole(markup=False, emoji=False, highlight=False)  # a token may be [b] or :smile:
    table = _table(answer, console.width, k)
    # Beside the table, since its own title and caption would be wrapped to its width.
    title, table.title = table.title, None
    console.print(title, style="table.title")
    console.print(table)
    rounding = [] if content.rounding is None else [str(content.rounding)]
    for line in (f"{result}; {content.n_tokens_processed:,} tokens", *rounding, *remarks(answer)):
        console.print(line, style="table.caption")


def _table(answer: object, width: int, k: int) -> Table:
    if isinstance(answer, Ranking):
        return _ranking(answer)
    if isinstance(answer, EdgeAnswer):
        values = [
            _estimate(value, answer.estimated(normalized=normalized)) if answer.is_held else "not held"
            for value, normalized in ((answer.raw, False), (answer.normalized, True))
        ]
        title = f"{answer.metric} of one edge"
        return _edges([(answer.source, answer.target, values)], title, ["raw", "normalised"])
    if isinstance(answer, LayerMatrix):
        column = _MATRIX_COLUMN if all(pair.harvested for pair in answer.pairs) else len(_NOT_HARVESTED) + _BORDERS
        fits = (len(answer.sources) + 1) * column <= width
        return _matrix(answer) if fits else _long_matrix(answer)
    if isinstance(answer, LayerBlock):
        return _block(answer, width, k)
    if isinstance(answer, Subgraph):
        return _strongest(answer, f"around {names_of(answer.keys)}")
    if not isinstance(answer, StrongestEdges):
        raise TypeError(f"no table for {type(answer).__name__}")
    if answer.by == "strength":
        return _strongest(answer, "between layers")
    return _strongest(answer, "of each pair of layers", _sections(answer.edges))


def _strongest(answer: StrongestEdges | Subgraph, what: str, sections: Iterable[int] = ()) -> Table:
    sign = "" if answer.sign == "both" else f" {answer.sign}"
    title = f"strongest{sign} edges {what} ({answer.metric}, {_scale(normalized=answer.normalized)})"
    rows = [(edge.source, edge.target, [_estimate(edge.value, edge)]) for edge in answer.edges]
    return _edges(rows, title, ["value"], sections)


def _ranking(answer: Ranking) -> Table:
    sign = "" if answer.sign == "both" else f" {answer.sign}"
    of = names_of([answer.key])
    has_tokens = any(entry.token is not None for entry in answer.entries)
    name = answer.question.removesuffix("s")
    table = Table(
        *_columns("#", name, *(["token"] if has_tokens else []), "value"),
        title=f"strongest{sign} {answer.question} of {of} ({answer.metric}, {_scale(normalized=answer.normalized)})",
    )
    for place, entry in enumerate(answer.entries, start=1):
        token = [_token(entry)] if has_tokens else []
        table.add_row(str(place), entry.component_key, *token, _estimate(entry.value, entry))
    return table


def _edges(
    rows: list[tuple[Node, Node, list[str]]], title: str, values: list[str], sections: Iterable[int] = ()
) -> Table:
    has_token = [
        any(node.token is not None for node in nodes) for nodes in ([r[0] for r in rows], [r[1] for r in rows])
    ]
    names = [name for end, has in zip(("source", "target"), has_token, strict=True) for name in [end, *["token"] * has]]
    table = Table(*_columns(*names, *values), title=title)
    ends_of_sections = set(sections)
    for number, (source, target, numbers) in enumerate(rows):
        cells: list[str] = []
        for node, has in zip((source, target), has_token, strict=True):
            cells += [node.component_key, *([_token(node)] if has else [])]
        table.add_row(*cells, *numbers, end_section=number in ends_of_sections)
    return table


def _sections(edges: Iterable[Edge]) -> list[int]:
    """The last edge of each pair of layers."""
    pairs = [(edge.source.layer, edge.target.layer) for edge in edges]
    return [number for number, (one, other) in enumerate(pairwise(pairs)) if one != other]


def _matrix(answer: LayerMatrix) -> Table:
    table = Table(*_columns("fed by", *answer.sources), title=_matrix_title(answer))
    for target, values, shares in zip(answer.targets, answer.values, answer.harvested, strict=True):
        cells = zip(values, shares, strict=True)
        table.add_row(target, *("" if s is None else _magnitude(v, _SIGNIFICANT_IN_MATRIX) for v, s in cells))
    return table


def _long_matrix(answer: LayerMatrix) -> Table:
    """Pair by pair: it fits any terminal."""
    table = Table(*_columns("source", "target", answer.statistic), title=_matrix_title(answer))
    for pair in sorted(answer.pairs, key=lambda pair: -1 if pair.value is None else pair.value, reverse=True):
        table.add_row(pair.source_layer, pair.target_layer, _magnitude(pair.value, _SIGNIFICANT))
    return table


def _matrix_title(answer: LayerMatrix) -> str:
    what = "sum" if answer.statistic == "mass" else "mean"
    measure = f"{answer.metric}, {_scale(normalized=answer.normalized)}"
    return f"{what} of the absolute values of all edges between layers ({measure})"


def _block(answer: LayerBlock, width: int, k: int) -> Table:
    """The rows and columns with the largest sums of absolute values, in their order; as many columns as fit."""
    magnitudes = np.nan_to_num(np.abs(answer.values))
    rows, columns = (np.argsort(-magnitudes.sum(axis)) for axis in (1, 0))
    harvested = np.array([node.was_harvested for node in answer.targets], dtype=bool)
    rows, columns = rows[harvested[rows]][:k], columns[:k]
    widths = np.array([max(len(names_of([answer.sources[n]])), _LONGEST_NUMBER) + _BORDERS for n in columns])
    room = width - max((len(names_of([answer.targets[n]])) for n in rows), default=0) - _BORDERS - 1
    columns = columns[: max(int((widths.cumsum() <= room).sum()), 1)]
    rows, columns = np.sort(rows), np.sort(columns)
    table = Table(
        *_columns("fed by", *(names_of([answer.sources[column]]) for column in columns)),
        title=f"strongest rows and columns of {len(answer.targets):,} x {len(answer.sources):,} edges "
        f"({answer.metric}, {_scale(normalized=answer.normalized)})",
    )
    for row in rows:
        numbers = (f"{value:+.{_SIGNIFICANT_IN_MATRIX}g}" for value in answer.values[row, columns])
        table.add_row(names_of([answer.targets[row]]), *numbers)
    return table


def _columns(*names: str) -> list[Column]:
    return [Column(name, overflow="fold") for name in names]  # on a narrow terminal nothing is cut off


def names_of(nodes: Iterable[Node]) -> str:
    """The keys of some nodes, with the texts of tokens."""
    return ", ".join(f"{n.component_key} {_token(n)}".rstrip() for n in nodes)


def _token(node: Node) -> str:
    return "" if node.token is None else quoted(node.token)


def _scale(*, normalized: bool) -> str:
    return "normalised" if normalized else "raw"


def _number(value: float | None) -> str:
    return _NOT_HARVESTED if value is None else f"{value:+.{_SIGNIFICANT}g}"


def _estimate(value: float | None, how_sure: Estimated) -> str:
    """A value with its standard error, or a mark where its source occurred in too few groups for one."""
    if how_sure.few_groups:
        return f"{_number(value)} {FEW_GROUPS}"
    error = how_sure.standard_error
    if error is None:
        return _number(value)
    digits = (
        f"{error:.0f}" if 10**_SIGNIFICANT_IN_ERROR <= error < _LARGEST_PLAIN else f"{error:.{_SIGNIFICANT_IN_ERROR}g}"
    )
    return f"{_number(value)} ± {digits}"


def _magnitude(value: float | None, digits: int) -> str:
    return _NOT_HARVESTED if value is None else f"{value:.{digits}g}"
