"""What a question chooses: which number of an edge is meant, and which edges are ranked. Imports no torch."""

from collections.abc import Container
from dataclasses import dataclass
from numbers import Integral
from typing import get_args

from lit_attr.errors import ConfigurationError
from lit_attr.topology.words import METRICS, SIGNS, SORTS, AnySign, AttrMetric, Sign, SortBy


@dataclass(frozen=True)
class Measure:
    """Which number of an edge is meant.

    Attributes:
        metric: `attr` or `attr_abs`.
        normalized: Whether the number is divided by the scales of source and target; otherwise it is the raw sum.

    Raises:
        ConfigurationError: If the metric is unknown.
    """

    metric: AttrMetric = "attr"
    normalized: bool = True

    def __post_init__(self) -> None:
        """Check the metric."""
        check_metric(self.metric)


@dataclass(frozen=True)
class Selection:
    """Which edges a ranking keeps.

    Attributes:
        k: How many at most.
        sign: `positive`, `negative`, or `both`, which ranks by magnitude.
        layers: Canonical addresses of the layers that take part; None for all.
        sort: By what they rank: `value`, or `lower` for the ends of 95 % intervals that are nearer to zero.
        min_z: Edges take part whose values are at least so many standard errors away from zero.
        sure: Whether edges take part only if zero is not in their 95 % intervals; without an interval they do not.

    Raises:
        ConfigurationError: If `k` is no whole number of at least 1, or another choice is not understood.
    """

    k: int
    sign: AnySign
    layers: Container[str] | None = None
    sort: SortBy = "value"
    min_z: float = 0.0
    sure: bool = False

    def __post_init__(self) -> None:
        """Check the choices."""
        if self.sort not in SORTS:
            raise ConfigurationError(f"sort must be one of {list(SORTS)}, found {self.sort!r}")
        if not 0 <= self.min_z < float("inf"):  # not a number is no bound either
            raise ConfigurationError(f"min_z must be a number of at least 0, found {self.min_z!r}")
        check_count("k", self.k)
        if self.sign not in get_args(AnySign):
            raise ConfigurationError(f"sign must be one of {list(get_args(AnySign))}, found {self.sign!r}")

    @property
    def signs(self) -> tuple[Sign, ...]:
        """The signs of the edges that are ranked."""
        return SIGNS if self.sign == "both" else (self.sign,)

    @property
    def needs_errors(self) -> bool:
        """Whether standard errors decide which edges are ranked, or how."""
        return self.sort != "value" or self.min_z > 0

    def admits(self, layer: str) -> bool:
        """Whether a layer takes part."""
        return self.layers is None or layer in self.layers


def check_metric(metric: object) -> None:
    """Refuse a metric that does not exist.

    Raises:
        ConfigurationError: If the metric is unknown.
    """
    if metric not in METRICS:
        raise ConfigurationError(f"metric must be one of {list(METRICS)}, found {metric!r}")


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1.

    Args:
        name: What the number is called in the message.
        value: The number.

    Raises:
        ConfigurationError: If it is smaller, or no whole number.
    """
    if not isinstance(value, Integral) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of at least 1, found {value!r}")
