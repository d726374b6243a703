"""What a comparison of two results answers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lit_attr.query.answers import ENDS, Node, ends
from lit_attr.query.frames import to_frame
from lit_attr.topology.words import AttrMetric

if TYPE_CHECKING:
    import polars

# By what the edges that differ are ranked: by the difference, or by the difference in standard errors.
CompareOrder = Literal["difference", "z"]
COMPARE_ORDERS: tuple[CompareOrder, ...] = ("difference", "z")
# Columns of a frame that say how an edge differs.
NUMBERS = ("value_a", "value_b", "difference", "standard_error", "z", "df", "p", "q")


@dataclass(frozen=True)
class ComparedEdge:
    """An edge in two results, A and B; what follows from standard errors is None where nothing was tested.

    Attributes:
        source: What feeds.
        target: What is fed.
        value_a: Normalised attribution in A, in units of the target's root mean square over the data of both.
        value_b: That in B, likewise.
        difference: B less A.
        standard_error: That of the difference.
        z: The difference in standard errors.
        df: Degrees of freedom, by Welch and Satterthwaite.
        p: Probability of a difference at least as large if there is none, by Student's t distribution.
        q: Smallest level at which the edge is a discovery among all tested edges, rounded up by a thousandth at most.
    """

    source: Node
    target: Node
    value_a: float
    value_b: float
    difference: float
    standard_error: float | None = None
    z: float | None = None
    df: float | None = None
    p: float | None = None
    q: float | None = None


@dataclass(frozen=True)
class PairOfMasses:
    """The edges between two layers in two results, of the edges that both have measured.

    Attributes:
        source_layer: What feeds.
        target_layer: What is fed.
        mass_a: Sum of the absolute normalised values in A.
        mass_b: That in B.
        n_edges: Number of these edges.
        n_different: How many of them are discoveries; None where nothing was tested.
    """

    source_layer: str
    target_layer: str
    mass_a: float
    mass_b: float
    n_edges: int
    n_different: int | None


@dataclass(frozen=True)
class Comparison:
    """Two results, A and B, compared edge by edge.

    Attributes:
        metric: `attr` or `attr_abs`.
        sort: By what edges are ranked.
        level: The false discovery rate q that is allowed.
        n_compared: Number of edges that both have measured: from sources that occur in both, to targets of both.
        n_in_a_only: Number of edges that A alone has measured.
        n_in_b_only: Number of edges that B alone has measured.
        why_not_tested: Why nothing was tested; None if it was.
        n_tested: Number of edges with an interval in both, over which discoveries are controlled.
        n_few: How many were not tested, since their sources occur in too few groups of batches.
        n_constant: How many were not tested, since neither result knows of a spread, as of an edge that is zero.
        n_nominal: Number of tested edges with a p value up to the level, without control; a share of the level, if
            nothing differs.
        n_different: Number of discoveries: edges that differ, of which at most a share of the level is expected not to.
        correlation: Pearson correlation of the values over all compared edges; None where it is not defined.
        correlation_without_noise: Pearson correlation if values had no sampling error; None where nothing was tested,
            or the errors are as large as the spread.
        rank_correlation: Spearman correlation of the values, rounded to bfloat16; None where it is not defined.
        masses: Pairs of layers side by side.
        edges: The discoveries that differ most; where nothing was tested, the edges that differ most. Best first.
    """

    metric: AttrMetric
    sort: CompareOrder
    level: float
    n_compared: int
    n_in_a_only: int
    n_in_b_only: int
    why_not_tested: str | None
    n_tested: int
    n_few: int
    n_constant: int
    n_nominal: int
    n_different: int
    correlation: float | None
    correlation_without_noise: float | None
    rank_correlation: float | None
    masses: tuple[PairOfMasses, ...]
    edges: tuple[ComparedEdge, ...]

    def frame(self) -> "polars.DataFrame":
        """A row for each edge; raises a ConfigurationError if polars is not installed."""
        return to_frame([edge_row(edge) for edge in self.edges], {**ENDS, **dict.fromkeys(NUMBERS, float)})

    def masses_frame(self) -> "polars.DataFrame":
        """A row for each pair of layers; raises a ConfigurationError if polars is not installed."""
        layers, masses = (
            dict.fromkeys(("source_layer", "target_layer"), str),
            dict.fromkeys(("mass_a", "mass_b"), float),
        )
        columns = {**layers, **masses, **dict.fromkeys(("n_edges", "n_different"), int)}
        return to_frame([vars(pair) for pair in self.masses], columns)


def edge_row(edge: ComparedEdge) -> dict[str, Any]:
    """An edge in the columns of a table."""
    return {**ends(edge.source, edge.target), **{name: getattr(edge, name) for name in NUMBERS}}
