"""Which sources occur in a batch: the components that are causally important somewhere, and the tokens."""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.topology.address import EMBED


def occurring(
    sources: Iterable[str], tokens: Int[Tensor, "batch seq"], ci: Mapping[str, Float[Tensor, "batch seq _"]]
) -> dict[str, Int[np.ndarray, " _source"]]:
    """The sources of some layers that occur, on the host, ascending.

    Args:
        sources: Layers, or `embed`.
        tokens: Token ids.
        ci: Layer to causal importances.
    """
    return {
        layer: tokens.unique().cpu().numpy()
        if layer == EMBED
        else (ci[layer] != 0).flatten(0, 1).any(0).nonzero()[:, 0].cpu().numpy()
        for layer in sources
    }
