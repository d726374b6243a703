"""Decompositions that need no training."""

from lit_attr.decomposition.untrained.neurons import Neurons
from lit_attr.decomposition.untrained.rule import Decomposition
from lit_attr.decomposition.untrained.svd import Svd

__all__ = ["Decomposition", "Neurons", "Svd"]
