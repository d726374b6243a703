"""What a request asks for, read from the query of its address."""

import math
from collections.abc import Sequence
from typing import Any, get_args

from starlette.datastructures import QueryParams

from lit_attr.errors import ConfigurationError
from lit_attr.topology.words import AnySign, AttrMetric

_COMPONENTS = ("[0-9]*",)


class Parameters:
    """The parameters of a request.

    Args:
        parameters: Query of its address.
    """

    def __init__(self, parameters: QueryParams) -> None:
        self._parameters = parameters

    def text(self, name: str) -> str:
        """A parameter that must be there.

        Raises:
            ConfigurationError: If it is not.
        """
        text = self._parameters.get(name)
        if not text:
            raise ConfigurationError(f"expected a parameter {name!r}, found {list(self._parameters)}")
        return text

    def texts(self, name: str, most: int) -> list[str]:
        """All values of a parameter, each once.

        Raises:
            ConfigurationError: If there are more than are allowed.
        """
        texts = list(dict.fromkeys(self._parameters.getlist(name)))
        if len(texts) > most:
            raise ConfigurationError(f"{name}: expected {most} at most, found {len(texts)}")
        return texts

    def flag(self, name: str) -> bool:
        """Whether a parameter is 1."""
        return self.choice(name, ("0", "1"), "0") == "1"

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number.

        Raises:
            ConfigurationError: If it is none, or out of its range.
        """
        text = self._parameters.get(name, str(default))
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
            raise ConfigurationError(f"{name} must be a whole number from {low} to {high}, found {text!r}")
        return int(text)

    def magnitude(self, name: str) -> float:
        """A number that is not negative; 0 if it is not given.

        Raises:
            ConfigurationError: If it is none.
        """
        text = self._parameters.get(name, "0")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise ConfigurationError(f"{name} must be a number of at least 0, found {text!r}")
        return value

    def choice(self, name: str, choices: Sequence[str], default: str) -> Any:  # noqa: ANN401 - one of some literals
        """One of some words.

        Raises:
            ConfigurationError: If it is another.
        """
        word = self._parameters.get(name, default)
        if word not in choices:
            raise ConfigurationError(f"{name} must be one of {list(choices)}, found {word!r}")
        return word

    @property
    def metric(self) -> AttrMetric:
        """Which attributions."""
        return self.choice("metric", get_args(AttrMetric), "attr")

    @property
    def measure(self) -> dict[str, Any]:
        """Which number of an edge is meant: arguments of an `Explorer`'s questions."""
        return {"metric": self.metric, "normalized": self.normalized}

    @property
    def sign(self) -> AnySign:
        """Which signs."""
        return self.choice("sign", get_args(AnySign), "both")

    @property
    def layers(self) -> Sequence[str]:
        """Which layers neighbours are of: components alone, or all. Of these an index knows the strongest."""
        return _COMPONENTS if self.flag("components") else ()

    @property
    def sure(self) -> bool:
        """Whether edges are left out that have zero in their intervals, or no interval."""
        return self.flag("sure")

    @property
    def normalized(self) -> bool:
        """Whether values are divided by the scales of source and target."""
        return not self.flag("raw")
