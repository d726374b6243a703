"""How sure edges are: standard errors in the unit of the values that are shown, and the groups behind them."""

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.storage.blocks import Blocks
from lit_attr.storage.standard_errors import StandardErrors, kind_of
from lit_attr.topology.address import OUTPUT
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import AttrMetric

# Below so many groups nothing is said of a spread.
FEW = 3
# Below so many groups the variation of a source's occurrence is added, see `EdgeErrors`.
SOME = 12
_ALL = slice(None)


class EdgeErrors:
    """Standard errors by pair of layers; components and token ids are named by their places, as in `Blocks`.

    What is stored is the standard error given how often the source occurs. Raw sums move with the occurrences, too: to
    the variance of a raw sum X is added X^2 times the relative variance of the source's weight. The same is done for
    normalised values of sources that occur in few groups, where the stored one is too small.

    Args:
        blocks: The values.
        errors: What the result has stored.
    """

    def __init__(self, blocks: Blocks, errors: StandardErrors) -> None:
        self._blocks = blocks
        self._content = blocks.content
        self._errors = errors

    @classmethod
    def of(cls, blocks: Blocks) -> "EdgeErrors | None":
        """The standard errors of a result; None if it has none.

        Args:
            blocks: The values.
        """
        errors = blocks.content.standard_errors
        return None if errors is None else cls(blocks, errors)

    def n_groups(
        self, source: str, target: str, metric: AttrMetric, sources: slice = _ALL
    ) -> Float[Tensor, " _source"]:
        """The effective number of groups, or blocks, in which the sources of a layer occurred.

        Args:
            source: Layer that feeds the target.
            target: Layer that is fed.
            metric: `attr` or `attr_abs`.
            sources: Places of the sources.
        """
        stored = self._content.stored_sources(source)
        numbers = self._errors.n_groups[kind_of(target, metric)][source]
        return (numbers if stored.ids is None else numbers[stored.ids])[sources]

    def tile(
        self, source: str, target: str, measure: Measure, sources: slice = _ALL, targets: slice = _ALL
    ) -> Float[Tensor, "_target _source"]:
        """Standard errors of a part of one pair of layers; not a number where there are too few groups.

        Args:
            source: Layer that feeds the target.
            target: Layer that is fed.
            measure: Which numbers.
            sources: Places of the source's components, or token ids.
            targets: Places of the target's components, or token ids.
        """
        stored = self._errors.edges(source, target, measure.metric)
        if target == OUTPUT:
            raw = self._of_output(stored[sources], self._content.w_unembed[:, targets])
        else:
            raw = stored[targets, sources].float()
        n_groups = self.n_groups(source, target, measure.metric, sources)
        n_all = self._errors.n_all_groups[kind_of(target, measure.metric)]
        adds = n_groups < SOME if measure.normalized else torch.ones_like(n_groups, dtype=torch.bool)
        if adds.any():
            values = self._blocks.tile(source, target, Measure(measure.metric, normalized=False), sources, targets)
            relative = ((n_all / n_groups - 1) / max(n_all - 1, 1)).clamp(min=0)
            raw = torch.where(adds, (raw.square() + values.square() * relative).sqrt(), raw)
        raw = torch.where(n_groups < FEW, torch.nan, raw)
        apply = self._blocks.normalisation.apply
        return apply(raw, source, target, sources, targets) if measure.normalized else raw

    @staticmethod
    def _of_output(
        vectors: Float[Tensor, "source block_x_d_model"], w_unembed: Float[Tensor, "d_model target"]
    ) -> Float[Tensor, "target source"]:
        """Lengths of the products of an unembedding column with the vectors of a source."""
        by_block = vectors.float().view(len(vectors), -1, w_unembed.shape[0]) @ w_unembed.float()
        return by_block.square().sum(1).sqrt().T
