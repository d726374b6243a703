"""The pictures of a result; `lit_attr.plots.style.save` writes them.

Example:
    >>> explorer = AttributionRepo.latest("s-1234abcd").explore()  # doctest: +SKIP
    >>> save(component_figure(explorer, "1.mlp.up:5"), Path("component.svg"))  # doctest: +SKIP
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_attr.errors import EdgeNotFoundError
from lit_attr.plots.comparison import plot_comparison
from lit_attr.plots.component import plot_component
from lit_attr.plots.convergence import convergence
from lit_attr.plots.convergence_curves import plot_convergence
from lit_attr.plots.labels import full_label, short_label
from lit_attr.plots.mass import plot_mass
from lit_attr.plots.stability import stability
from lit_attr.plots.stability_curves import plot_stability
from lit_attr.plots.style import add_notes
from lit_attr.plots.subgraph import plot_subgraph
from lit_attr.plots.volcano import plot_volcano
from lit_attr.plots.volcano_counts import volcano_counts
from lit_attr.query.answers import Node, Ranking
from lit_attr.query.compare_answers import Comparison
from lit_attr.query.explorer import Explorer
from lit_attr.query.found import NotHeld, added
from lit_attr.query.result_name import ResultName
from lit_attr.storage.harvested_metrics import Sample
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.choice import check_count
from lit_attr.topology.words import SIGNS, AttrMetric, ErrorBasis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What is to be said of intervals, unless they are of other text of the same kind.
_BASES: dict[ErrorBasis, str] = {
    "file order": "95 % intervals of this text in the order of its file alone: rows were not drawn at random",
    "not harvested": "no standard errors: they were not harvested",
}
_VALUES = {"attr": "normalised attribution", "attr_abs": "normalised attribution to the magnitude"}


def mass_figure(explorer: Explorer, *, metric: AttrMetric = "attr") -> "Figure":
    """The edge mass between layers as a heat map: sums of the normalised magnitudes of all measured edges.

    Args:
        explorer: The result.
        metric: `attr` or `attr_abs`.

    Raises:
        ConfigurationError: If there are no edges, the metric was not harvested, or matplotlib is not installed.
        StorageError: If a value is not finite.
    """
    matrix = explorer.matrix(metric=metric)
    masses = {(pair.source_layer, pair.target_layer): pair.value for pair in matrix.pairs}
    is_partial = any(pair.harvested < 1 for pair in matrix.pairs)
    label = f"sum of |{_VALUES[metric]}|" + (", edges that were harvested" if is_partial else "")
    return _marked(plot_mass(masses, label), explorer, matrix.sample)


def component_figure(explorer: Explorer, key: str, *, k: int = 10, metric: AttrMetric = "attr") -> "Figure":
    """A component's top sources and targets as two panels of bars with 95 % intervals.

    Args:
        explorer: The result.
        key: Key of the component or token.
        k: How many of each sign at most.
        metric: `attr` or `attr_abs`.

    Raises:
        KeyFormatError: If the key is malformed.
        EdgeNotFoundError: If the key is neither source nor target of any edge.
        ConfigurationError: If it has no edges that are not zero, `k` is not positive, the metric was not harvested, or
            matplotlib is not installed.
    """
    rankings: list[list[Ranking]] = []
    refusals: list[EdgeNotFoundError] = []
    for ask in (explorer.sources, explorer.targets):
        try:
            rankings.append([ask(key, k=k, sign=sign, metric=metric) for sign in SIGNS])
        except EdgeNotFoundError as error:  # an output token feeds nothing, and nothing feeds the embedding
            rankings.append([])
            refusals.append(error)
    answered = [ranking for side in rankings for ranking in side]
    if not answered:
        raise EdgeNotFoundError("; ".join(map(str, refusals)))
    name = full_label(answered[0].key)
    if not all(ranking.was_harvested for ranking in answered):
        name += " (no target of the harvest)"
    n_not_harvested = max(ranking.n_not_harvested for ranking in answered)
    sources, targets = ([entry for ranking in side for entry in ranking.entries] for side in rankings)
    figure = plot_component(name, sources, targets, _VALUES[metric], n_not_harvested)
    not_held = added(ranking.not_held for ranking in answered)
    return _marked(figure, explorer, answered[0].sample, not_held, answered[0].standard_errors)


def subgraph_figure(
    explorer: Explorer,
    keys: Sequence[str],
    *,
    k: int = 3,
    depth: int = 2,
    threshold: float = 0.0,
    metric: AttrMetric = "attr",
    layers: Sequence[str] = (),
) -> "Figure":
    """The strongest edges that lead to some keys and away from them, layer above layer.

    Args:
        explorer: The result.
        keys: Where to begin.
        k: How many edges of a node at most.
        depth: How many edges away from a key at most.
        threshold: Smallest normalised magnitude.
        metric: `attr` or `attr_abs`.
        layers: Nodes beside the keys are of these; all if none are given.

    Raises:
        KeyFormatError: If a key is malformed.
        EdgeNotFoundError: If a key is neither source nor target of any edge.
        ConfigurationError: If there are no edges, a layer has more nodes than fit on a page, a number is not positive,
            the metric was not harvested, or matplotlib is not installed.
    """
    graph = explorer.subgraph(keys, k=k, depth=depth, threshold=threshold, metric=metric, layers=layers)
    edges = [(_key(edge.source), _key(edge.target), edge.value) for edge in graph.edges]
    ends = {key for edge in edges for key in edge[:2]}
    labels = {_key(node): short_label(node) for node in graph.nodes if _key(node) in ends}
    begin, unmeasured = ([_key(node) for node in nodes] for nodes in (graph.keys, _not_harvested(graph.nodes)))
    figure = plot_subgraph(edges, labels, begin, unmeasured, _VALUES[metric])
    return _marked(figure, explorer, graph.sample, graph.not_held)


def volcano_figure(
    explorer: Explorer, *, k: int = 6, metric: AttrMetric = "attr", layers: Sequence[str] = ()
) -> "Figure":
    """How sure edges are against how large they are: all of them counted, and the strongest of pairs of layers named.

    Args:
        explorer: The result.
        k: How many are named at most, one of each pair of layers.
        metric: `attr` or `attr_abs`.
        layers: Edges take part that have one of these at either end; all if none are given.

    Raises:
        ConfigurationError: If the result has no standard errors, there are no such edges, none has an interval, `k` is
            not positive, or matplotlib is not installed.
        NotHeldError: If the result holds its strongest edges alone.
        StorageError: If a value is not finite.
    """
    found = volcano_counts(explorer, metric, layers)
    check_count("k", k)
    strongest = explorer.edges(k=1, by="pair", metric=metric, layers=layers)
    known = [edge for edge in strongest.edges if edge.interval is not None]
    named = sorted(known, key=lambda edge: -abs(edge.value))[:k]
    figure = plot_volcano(found, named, _VALUES[metric])
    return _marked(figure, explorer, strongest.sample, basis=strongest.standard_errors)


def comparison_figure(answer: Comparison, names: Sequence[ResultName]) -> "Figure":
    """The edges that differ most between two results, and the edge mass of their layers side by side.

    Args:
        answer: The comparison.
        names: Names of A and of B.

    Raises:
        ConfigurationError: If no edge has mass in both, or matplotlib is not installed.
    """
    figure = plot_comparison(answer)
    add_notes(figure, [f"{letter}: {name}" for letter, name in zip("AB", names, strict=True)])
    return figure


def _marked(
    figure: "Figure",
    explorer: Explorer,
    sample: Sample | None,
    not_held: NotHeld | None = None,
    basis: ErrorBasis = "random order",
) -> "Figure":
    """A picture of less than was asked for says so in its upper corner, as does one of a sample, or of rounded sums."""
    partial = explorer.storage.recorded.partial
    notes = [partial and f"partial result: {partial}", sample, not_held, explorer.storage.rounding, _BASES.get(basis)]
    add_notes(figure, [str(note) for note in notes if note])
    return figure


def _not_harvested(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if not node.was_harvested]


def _key(node: Node) -> ComponentKey:
    return ComponentKey(node.layer, node.component_idx)


def stability_figure(folder: Path, *, k: int = 10, n_targets: int = 20) -> "Figure":
    """How the strongest sources of the strongest targets settle, against batches.

    Args:
        folder: Folder of a harvest with several committed parts.
        k: How many sources of each target.
        n_targets: How many targets at most.

    Raises:
        ConfigurationError: If the harvest has fewer than two parts, a number is not positive, or matplotlib is not
            installed.
        StorageError: If a part is damaged.
    """
    return plot_stability(stability(folder, k, n_targets))


def convergence_figure(folder: Path, *, k: int = 100) -> "Figure":
    """How standard errors shrink while a harvest goes on, against tokens.

    Args:
        folder: Folder of a harvest with several committed parts, or one that may end early.
        k: How many edges of each two layers are followed.

    Raises:
        ConfigurationError: If the harvest has fewer than two parts and was not looked at twice, has no standard errors,
            `k` is not positive, or matplotlib is not installed.
        StorageError: If a part is damaged.
    """
    return plot_convergence(convergence(folder, k))
