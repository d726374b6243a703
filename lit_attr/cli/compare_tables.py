"""The answer of `lit-attr compare` as tables."""

from collections.abc import Iterator, Sequence

from rich.table import Column, Table

from lit_attr.cli.answer_tables import AnswerConsole, names_of
from lit_attr.query.compare_answers import ComparedEdge, Comparison
from lit_attr.query.result_name import ResultName


def print_comparison(answer: Comparison, names: Sequence[ResultName]) -> None:
    """Print two tables, and what was compared and tested.

    Args:
        answer: The comparison.
        names: Names of A and of B.
    """
    console = AnswerConsole(markup=False, emoji=False, highlight=False)
    console.print(f"layers side by side: sums of |{answer.metric}|, normalised, of edges in both", style="table.title")
    console.print(_masses(answer))
    console.print(_title(answer), style="table.title")
    console.print(_edges(answer))
    for line in (*(f"{letter}: {name}" for letter, name in zip("AB", names, strict=True)), *_remarks(answer)):
        console.print(line, style="table.caption")


def _masses(answer: Comparison) -> Table:
    columns = ["source", "target", "A", "B", *([] if answer.why_not_tested else ["differ"])]
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for pair in answer.masses:
        n_different = [] if pair.n_different is None else [f"{pair.n_different:,} of {pair.n_edges:,}"]
        table.add_row(pair.source_layer, pair.target_layer, f"{pair.mass_a:.4g}", f"{pair.mass_b:.4g}", *n_different)
    return table


def _title(answer: Comparison) -> str:
    what = "edges with the largest differences" if answer.why_not_tested else "edges that differ"
    return f"{what}, by {answer.sort} ({answer.metric}, normalised)"


def _edges(answer: Comparison) -> Table:
    names = ["source", "target", "A", "B", "B - A"]
    if answer.why_not_tested is None:
        names += ["±", "z", "p", "q"]
    table = Table(*(Column(name, overflow="fold") for name in names))
    for edge in answer.edges:
        table.add_row(names_of([edge.source]), names_of([edge.target]), *_numbers(edge))
    return table


def _numbers(edge: ComparedEdge) -> Iterator[str]:
    yield from (f"{value:+.4g}" for value in (edge.value_a, edge.value_b, edge.difference))
    if edge.z is not None:
        yield f"{edge.standard_error:.2g}"
        yield f"{edge.z:+.2f}"
        yield from (f"{number:.2g}" for number in (edge.p, edge.q))


def _remarks(answer: Comparison) -> Iterator[str]:
    yield (
        f"{answer.n_compared:,} edges are in both; {answer.n_in_a_only:,} in A alone and {answer.n_in_b_only:,} in B "
        "alone were not compared: their sources do not occur in the other, or their targets were not harvested there"
    )
    if answer.why_not_tested is not None:
        yield f"nothing was tested: {answer.why_not_tested}"
    else:
        yield (
            f"{answer.n_different:,} of {answer.n_tested:,} tested edges differ at a false discovery rate of "
            f"{answer.level:g}; {answer.n_nominal:,} have p <= {answer.level:g}, where "
            f"{answer.n_tested * answer.level:,.0f} are expected if nothing differs"
        )
        yield (
            f"not tested: {answer.n_few:,} edges whose sources occur in too few groups of batches, and "
            f"{answer.n_constant:,} without a spread in either, as of edges that are zero"
        )
    known = {
        "Pearson": answer.correlation,
        "without sampling noise, of tested edges": answer.correlation_without_noise,
        "Spearman": answer.rank_correlation,
    }
    if said := [f"{name} {value:.4f}" for name, value in known.items() if value is not None]:
        yield f"correlation over the edges in both: {', '.join(said)}"
    yield "values of A and B are in units of one root mean square of the target, over the data of both"
    if answer.why_not_tested is None:
        yield "±: standard error of B - A"
