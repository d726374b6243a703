"""What the closed forms take of a batch, layer by layer while it is computed: where causal importances are not zero."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.counts import PairCounts
from lit_attr.attribution.closed_form.weights import SparseWeights
from lit_attr.decomposition.model import Capture
from lit_attr.topology.address import EMBED
from lit_attr.topology.sums import Sums

# Bytes of causal importances that wait until the host waits for the device, once for all of them.
_WAITING = 1 << 28
_LARGEST_INT32 = (1 << 31) - 1
Count = Callable[[Mapping[str, Float[Tensor, "batch seq _"]], Collection[str]], PairCounts]


@dataclass(frozen=True)
class TargetColumns:
    """Components of a layer that are targets; each has a column of the sums of `attr_abs`.

    Attributes:
        layer: The layer.
        columns: Which of its components they are; None for all.
        count: How many they are.
    """

    layer: str
    columns: Int[Tensor, " target"] | None
    count: int


@dataclass(frozen=True)
class LayerPairs:
    """The pairs of a position and a component of a layer whose causal importance is not zero.

    Attributes:
        place: Place of each among all positions of the batch by components, ascending; int32 where it suffices.
        weight: Causal importance of each; times its activation once that is known.
        n_components: Number of components of the layer.
    """

    place: Int[Tensor, " pair"]
    weight: Float[Tensor, " pair"]
    n_components: int

    @classmethod
    def of(cls, ci: Float[Tensor, "batch seq component"], n_pairs: int, dtype: torch.dtype) -> "LayerPairs":
        """The pairs of a layer, whose number is known, so that the host need not wait."""
        place = (ci != 0).flatten().nonzero_static(size=n_pairs)[:, 0]
        weight = ci.flatten().index_select(0, place).to(dtype)
        return cls(place.int() if ci.numel() <= _LARGEST_INT32 else place, weight, ci.shape[-1])

    def active(self, activations: Float[Tensor, "batch seq component"]) -> "LayerPairs":
        """These pairs, with their activations in the weights."""
        return replace(self, weight=activations.flatten().index_select(0, self.place).to(self.weight) * self.weight)

    def some(self, places: slice, first_position: int) -> tuple[Int[Tensor, " pair"], Float[Tensor, " pair"]]:
        """Places and weights of some pairs, positions counted anew.

        Args:
            places: Which pairs.
            first_position: The position that is to be the first.
        """
        return self.place[places].long() - first_position * self.n_components, self.weight[places]


@dataclass(frozen=True)
class Batch:
    """What all sequences of a batch share.

    Attributes:
        capture: What the component forward left.
        pairs: Source layer to its pairs.
        activations: Target layer to the activations of its targets, in the dtype of the forward.
        counts: How many pairs there are.
        components: Source layer to the components that have any, ascending; None for all.
        rows: Source layer to the rows of its sources in the sums: of these components, of the tokens that occur; None
            for all rows.
        n_tokens: How many tokens occur.
        which: Which of them stands at each position.
        most_frequent: How often the most frequent token occurs.
    """

    capture: Capture
    pairs: Mapping[str, LayerPairs]
    activations: Mapping[str, Float[Tensor, "batch seq _"]]
    counts: PairCounts
    components: Mapping[str, Int[Tensor, " _component"] | None]
    rows: Mapping[str, Int[Tensor, " _source"] | None]
    n_tokens: int
    which: Int[Tensor, "batch seq"]
    most_frequent: int

    def weights(self, layer: str, rows: slice) -> SparseWeights:
        """The weights of a source layer in some sequences, positions counted from the first of them."""
        pairs, seq_len = self.pairs[layer], self.capture.tokens.shape[1]
        place, weight = pairs.some(self.counts.places(layer, rows), rows.start * seq_len)
        longest = self.counts.longest_sum(layer, rows)
        return SparseWeights.of_places(place, weight, pairs.n_components, longest, self.components[layer])


def waiting_on(device: torch.device) -> int:
    """Bytes of causal importances that are held: none on a CPU, where nobody waits and caches hold those of a layer."""
    return 0 if device.type == "cpu" else _WAITING


class Parts:
    """The parts of a batch that the closed forms take, as they come.

    Args:
        sources: Layers whose components are sources.
        targets: Layer to its targets; those of other layers are not needed.
        dtype: Floating-point type of the weights.
        count: What counts pairs.
        waiting: Bytes of causal importances that are held before they are counted; see `waiting_on`.
    """

    def __init__(
        self,
        sources: Mapping[str, object],
        targets: Mapping[str, TargetColumns],
        dtype: torch.dtype,
        count: Count,
        waiting: int,
    ) -> None:
        self._most_waiting = waiting
        self._count_pairs = count
        self._sources = sources
        self._targets = targets
        self._dtype = dtype
        self._waiting: dict[str, Float[Tensor, "batch seq _"]] = {}
        self._counts = PairCounts({}, {}, {})
        self._pairs: dict[str, LayerPairs] = {}
        self._activations: dict[str, Float[Tensor, "batch seq _"]] = {}

    def take_importances(self, layer: str, ci: Float[Tensor, "batch seq component"]) -> None:
        """Take the causal importances of a layer; the host waits for the device where many have come together."""
        if layer in self._sources:
            self._waiting[layer] = ci
            if sum(values.nbytes for values in self._waiting.values()) > self._most_waiting:
                self._count()

    def _count(self) -> None:
        """Find the pairs of what waits; the host waits for the device once."""
        counts = self._count_pairs(self._waiting, self._waiting.keys())
        for layer, ci in self._waiting.items():
            self._pairs[layer] = LayerPairs.of(ci, int(counts.by_block[layer].sum()), self._dtype)
        self._counts |= counts
        self._waiting.clear()

    def take_activations(self, layer: str, activations: Float[Tensor, "batch seq component"]) -> None:
        """Take the activations of a layer, of its sources as of its targets."""
        self.take_sources(layer, activations)
        self.take_targets(layer, activations)

    def take_sources(self, layer: str, activations: Float[Tensor, "batch seq component"]) -> None:
        """Take the activations of a layer's sources."""
        if self._waiting:
            self._count()
        if layer in self._pairs:
            self._pairs[layer] = self._pairs[layer].active(activations)

    def take_targets(self, layer: str, activations: Float[Tensor, "batch seq component"]) -> None:
        """Take the activations of a layer's targets."""
        if layer in self._targets:
            columns = self._targets[layer].columns
            self._activations[layer] = activations if columns is None else activations[..., columns]

    def batch(self, capture: Capture, sums: Sums) -> Batch:
        """The whole of it; its sources get rows in the sums, and the host waits for the tokens.

        Args:
            capture: What the component forward left.
            sums: What the batch is to be added to.
        """
        device, components = capture.tokens.device, self._counts.components
        token_ids, which, occurrences = capture.tokens.cpu().unique(return_inverse=True, return_counts=True)
        tokens = {EMBED: token_ids.numpy()} if EMBED in sums.live else {}
        some = {layer: ids for layer, ids in components.items() if len(ids) < self._pairs[layer].n_components}
        joined = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *some.values()])).to(device)
        chosen = dict(zip(some, joined.split([len(ids) for ids in some.values()]), strict=True))
        return Batch(
            capture,
            self._pairs,
            self._activations,
            self._counts,
            {layer: chosen.get(layer) for layer in components},
            sums.rows({**components, **tokens}),
            len(token_ids),
            which.to(device),
            int(occurrences.numpy().max()),
        )
