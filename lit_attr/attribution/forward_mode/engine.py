"""Attributions in forward mode: what active sources add to the output of their matrix is pushed on to all targets.

If the output of source s's matrix moves by activation times causal importance times write vector at all positions of a
sequence at once, the activations of the targets move, to first order, by `dy[p, t]`; then

    attr[t, s]     = sum_p               dy[p, t]
    attr_abs[t, s] = sum_p sign(y[p, t]) dy[p, t]

summed over sequences. One movement for each source serves both metrics and all targets, where gradients need one for
each target and metric; and a source that is nowhere active in a sequence needs none. Where no attention lies on the
paths positions do not mix, and one movement serves a different source at each of them.
"""

from collections.abc import Mapping
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lit_attr.attribution.closed_form.workspace import evenly
from lit_attr.attribution.forward_mode.direct_paths import DirectPaths, JacobianProduct
from lit_attr.attribution.forward_mode.locality import spreads
from lit_attr.attribution.forward_mode.movements import Movements
from lit_attr.attribution.forward_mode.responses import Reader, add_answer_, tables
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums


class ForwardModeEngine:
    """Attributions sequence by sequence, source layer by source layer, whatever lies on the paths.

    Args:
        model: Whose components they are; on its device already.
        topology: The attribution graph; only its edge blocks are computed.
        alive: Layer to the components that are targets; rows of others stay zero.
        movements_per_pass: Movements pushed on at once; memory grows with it.
    """

    def __init__(
        self,
        model: DecomposedModel,
        topology: Topology,
        alive: Mapping[str, Bool[Tensor, " component"]],
        movements_per_pass: int,
    ) -> None:
        self.model = model
        self.topology = topology
        self.alive = alive
        self.movements_per_pass = movements_per_pass
        device, anatomy = model.unembedding.device, model.anatomy()
        self._columns = {layer: slice(None) if m.all() else m.nonzero()[:, 0].to(device) for layer, m in alive.items()}
        # Source layer, and whether its paths mix positions, to target layers.
        self._groups: dict[tuple[str, bool], list[str]] = {}
        for target, sources in topology.sources.items():
            for source in sources if target not in alive or alive[target].any() else ():
                group = source, spreads(source, target, anatomy, topology.n_components)
                self._groups.setdefault(group, []).append(target)

    def truncated(self) -> "ForwardModeEngine":
        """An engine that takes one full pass for each source layer: enough to see how much memory a pass needs."""
        return _OnePass(self.model, self.topology, self.alive, self.movements_per_pass)

    @torch.no_grad()
    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch.

        Args:
            sums: Changed in place.
            capture: Of the component forward; its graph is not needed.
            ci: Layer to causal importances.
        """
        for row in range(len(capture.tokens)):
            sequence = _Sequence(self.model, capture, ci, row)
            for (source, spreading), targets in self._groups.items():
                self._add_group_(sums, sequence, source, spreading, targets)

    def _add_group_(self, sums: Sums, sequence: "_Sequence", source: str, spreading: bool, targets: list[str]) -> None:
        movements = sequence.movements(source, spreading)
        if not movements.count:
            return
        push = JacobianProduct(sequence.paths, source, targets)
        readers = {target: sequence.reader(target, self._columns.get(target, slice(None))) for target in targets}
        for piece in self._passes(movements.count):
            some = movements.some(piece)
            for target, answer in push(some.dense(len(sequence.tokens))).items():
                add_answer_(tables(sums, source, target), readers[target], some, spreading, answer)

    def _passes(self, n_movements: int) -> list[slice]:
        return list(evenly(n_movements, self.movements_per_pass))


class _OnePass(ForwardModeEngine):
    """Every source is taken to be active everywhere: sequences may differ in how many are, and passes with it."""

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        super().add_(sums, capture, {layer: torch.ones_like(values) for layer, values in ci.items()})

    def _passes(self, n_movements: int) -> list[slice]:
        return [slice(0, min(n_movements, self.movements_per_pass))]


class _Sequence:
    """One sequence of a captured batch, in the dtype of the model."""

    def __init__(self, model: DecomposedModel, capture: Capture, ci: Mapping[str, Tensor], row: int) -> None:
        self.model = model
        self.capture = capture
        self.ci = ci
        self.row = row
        self.tokens = capture.tokens[row]
        self._embeddings = self._of(capture.embed)

    def _of(self, values: Float[Tensor, "batch seq width"]) -> Float[Tensor, "seq width"]:
        return values[self.row].detach().to(self.model.unembedding.dtype)

    @cached_property
    def paths(self) -> DirectPaths:
        """All of its direct paths."""
        post = self.capture.post
        outputs = {layer: self.model.components(layer).write(self._of(values)) for layer, values in post.items()}
        return DirectPaths(self.model, self.tokens, {EMBED: self._embeddings, **outputs})

    def movements(self, source: str, spreading: bool) -> Movements:
        """Of a source layer."""
        if source == EMBED:
            return Movements.of_tokens(self._embeddings, self.tokens, spreading)
        weights = self._of(self.capture.post[source]) * self._of(self.ci[source])
        return Movements.of_components(self.model.components(source).U, weights, spreading)

    def reader(self, target: str, columns: slice | Tensor) -> Reader:
        """Of a target layer."""
        if target == OUTPUT:
            return Reader(None, None, columns)
        sign = self._of(self.capture.pre[target])[:, columns].sign()
        return Reader(self.model.components(target).V[:, columns], sign, columns)
