"""What a question chooses: which number of an edge is meant, and which edges are ranked. Imports no torch."""

from collections.abc import Container
from dataclasses import dataclass
from numbers import Integral
from typing import get_args

from lit_attr.errors import ConfigurationError
from lit_attr.topology.words import METRICS, SIGNS, AnySign, AttrMetric, Sign


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

    Raises:
        ConfigurationError: If `k` is no whole number of at least 1, or the sign is unknown.
    """

    k: int
    sign: AnySign
    layers: Container[str] | None = None

    def __post_init__(self) -> None:
        """Check the number and the sign."""
        check_count("k", self.k)
        if self.sign not in get_args(AnySign):
            raise ConfigurationError(f"sign must be one of {list(get_args(AnySign))}, found {self.sign!r}")

    @property
    def signs(self) -> tuple[Sign, ...]:
        """The signs of the edges that are ranked."""
        return SIGNS if self.sign == "both" else (self.sign,)

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
