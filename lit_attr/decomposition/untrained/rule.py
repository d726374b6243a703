"""The rule of a decomposition without training: the factors of a matrix, and which components matter where."""

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lit_attr.errors import ConfigurationError

Factors = tuple[Float[Tensor, "d_in component"] | None, Float[Tensor, "component d_out"] | None]


class Decomposition(ABC):
    """A rule that writes a matrix as a sum of rank-one components.

    A subclass must keep each argument of its constructor in an attribute of the same name. These attributes are the
    settings that are recorded with a result, and a harvest is continued only with the same ones.

    Args:
        threshold: Share of a position's total that a component must exceed to be causally important there; see
            `importance`.
        matrices: Patterns (`*` matches all) of the matrices that are decomposed, such as `*.mlp.down` or `3.attn.*`;
            None for all.

    Raises:
        ConfigurationError: If a setting is not in its range.
    """

    # For subclasses whose constructor does not call this one's.
    threshold: float = 0.01
    matrices: Sequence[str] | None = None

    def __init__(self, threshold: float = 0.01, matrices: Sequence[str] | None = None) -> None:
        if not 0 <= threshold < 1:
            raise ConfigurationError(
                f"{type(self).__name__}: threshold must be at least 0 and below 1, which no share exceeds, "
                f"found {threshold}"
            )
        self.threshold = threshold
        self.matrices = matrices

    @abstractmethod
    def factors(self, layer: str, weight: Float[Tensor, "d_in d_out"]) -> Factors | None:
        """Write a matrix as a product.

        Args:
            layer: Canonical address, such as `0.mlp.up`.
            weight: The matrix; its output is `x @ weight`.

        Returns:
            What the components read and what they write, `V` and `U` with `V @ U` equal to the weight. None in place
            of one of them stands for the identity, which all matrices share. None alone leaves the matrix whole.
        """

    def importance(
        self, activations: Float[Tensor, "*axes component"], norms: Float[Tensor, " component"]
    ) -> Float[Tensor, "*axes component"]:
        """Causal importances: here 1 where a component's share of its position's total exceeds the threshold, else 0.

        The length of what a component writes, `|activation| * norm`, is its part of the total.

        Args:
            activations: Activations of one matrix's components, in the unmodified model.
            norms: Lengths of the rows of `U`, which the components write.

        Returns:
            Values in [0, 1].
        """
        lengths = activations.abs() * norms
        return (lengths > self.threshold * lengths.sum(-1, keepdim=True)).to(activations.dtype)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor.

        Raises:
            ConfigurationError: If one is not kept in an attribute of its name.
        """
        names = list(inspect.signature(type(self)).parameters)
        if missing := [name for name in names if not hasattr(self, name)]:
            raise ConfigurationError(
                f"{type(self).__name__} must keep the arguments of its constructor in attributes of the same names, "
                f"so that they can be recorded; it has none for: {', '.join(missing)}"
            )
        return {name: getattr(self, name) for name in names}

    @property
    def description(self) -> dict[str, Any]:
        """What identifies the decomposition, in plain types: class, settings, and a digest of the class's source."""
        kind = type(self)
        try:
            source = inspect.getsource(kind)
        except (OSError, TypeError):  # typed into a prompt
            source = ""
        description = {
            "class_path": f"{kind.__module__}.{kind.__qualname__}",
            "init_args": self.settings,
            "source_digest": hashlib.sha256(source.encode()).hexdigest()[:16],
        }
        # The description is the one that is read back from a file: tuples are lists, what JSON does not know is text.
        return json.loads(json.dumps(description, default=str))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"
