"""Attributions in forward mode: what active sources add to the output of their matrix is pushed forward to all targets.

A source s moves the output of its matrix by activation times causal importance times write vector, at all positions of
a sequence at once: a tangent of that output. Its Jacobian-vector product moves the activations of the targets by
`dy[p, t]`; then

    attr[t, s]     = sum_p               dy[p, t]
    attr_abs[t, s] = sum_p sign(y[p, t]) dy[p, t]

summed over sequences. One tangent for each source serves both metrics and all targets, where gradients need one for
each target and metric; and a source that is nowhere active in a sequence needs none. Where no attention lies on the
paths positions do not mix, and one tangent serves a different source at each of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.workspace import evenly
from lit_attr.attribution.engine import Whole
from lit_attr.attribution.forward_mode.accumulate import Readers, add_input_tangents_
from lit_attr.attribution.forward_mode.jvp import JVP, DirectPaths
from lit_attr.attribution.forward_mode.locality import mixes_positions
from lit_attr.attribution.forward_mode.tangents import Tangents
from lit_attr.attribution.occurring import occurring
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.topology.address import EMBED
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums


@dataclass(frozen=True)
class _Group:
    """Edge blocks of one source layer that share tangents.

    Attributes:
        source: Source layer, or `embed`.
        mixes: Whether their paths mix positions.
        readers: Name of each input that they lead to, to the target layers that read it.
    """

    source: str
    mixes: bool
    readers: dict[str, list[str]] = field(default_factory=dict)


class ForwardModeEngine:
    """Attributions sequence by sequence, source layer by source layer, whatever lies on the paths.

    Args:
        model: Decomposed model, on its device already.
        layout: The sums that are asked for; all edge blocks of its graph are computed.
        tangents_per_pass: Tangents pushed forward at once; memory grows with it.
    """

    needs_graph = False
    reserved_bytes = 0

    def __init__(
        self,
        model: DecomposedModel,
        layout: Layout,
        tangents_per_pass: int,
    ) -> None:
        self.model = model
        self.tangents_per_pass = tangents_per_pass
        topology, device, anatomy = layout.topology, model.device, model.anatomy()
        self._columns = {layer: ids.to(device) for layer, ids in layout.targets.items()}
        groups: dict[tuple[str, bool], _Group] = {}
        for name in layout.asked_inputs:
            readers = topology.readers[name]
            for source in topology.sources[readers[0]]:
                mixes = mixes_positions(source, readers[0], anatomy, topology.n_components)
                groups.setdefault((source, mixes), _Group(source, mixes)).readers[name] = readers
        self._groups = list(groups.values())
        self._sources = list(dict.fromkeys(group.source for group in self._groups))

    def truncated(self) -> "_OnePass":
        """An engine that takes one full pass for each source layer: enough to see how much memory a pass needs."""
        return _OnePass(self)

    def gather(self, sums: Sums) -> Whole:
        """The whole batch; see `Engine.gather`."""
        return Whole(self, sums)

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add the attributions of one batch; see `Engine.add_`."""
        self.add_passes_(sums, capture, ci, first_only=False)

    @torch.no_grad()
    def add_passes_(
        self,
        sums: Sums,
        capture: Capture,
        ci: Mapping[str, Float[Tensor, "batch seq _"]],
        *,
        first_only: bool,
    ) -> None:
        """Add the attributions of one batch, or a part of them.

        Args:
            sums: Changed in place.
            capture: From the component forward; its graph is not needed.
            ci: Layer to causal importances.
            first_only: Whether to take one pass of each sequence and source layer, as large as passes may be.
        """
        sums.rows(occurring(self._sources, capture.tokens, ci))
        device = capture.tokens.device
        row_of = {layer: torch.from_numpy(sums.live[layer].row_of).to(device) for layer in self._sources}
        for row in range(len(capture.tokens)):
            sequence = _Sequence(self.model, capture, ci, row)
            for group in self._groups:
                tangents = sequence.tangents(group)
                if not tangents.count:
                    continue
                largest = slice(0, min(tangents.count, self.tangents_per_pass))
                passes = [largest] if first_only else evenly(tangents.count, self.tangents_per_pass)
                some = (tangents.some(piece) for piece in passes)
                self._add_group_(sums, sequence, group, row_of[group.source], some)

    def _add_group_(
        self,
        sums: Sums,
        sequence: "_Sequence",
        group: _Group,
        row_of: Int[Tensor, " _source"],
        passes: Iterable[Tangents],
    ) -> None:
        jvp = JVP(sequence.paths, group.source, list(group.readers))
        signed = {
            name: [
                (sequence.readers(target, self._columns[target]), sums.attr_abs[target][group.source].numbers)
                for target in targets
                if target in sums.attr_abs
            ]
            for name, targets in group.readers.items()
        }
        for tangents in passes:
            for name, input_tangents in jvp(tangents.dense(len(sequence.tokens))).items():
                attr = sums.attr[name][group.source].numbers if name in sums.attr else None
                add_input_tangents_(attr, signed[name], row_of, tangents, input_tangents)


@dataclass(frozen=True)
class _OnePass:
    """The first pass of each source layer, with every source active everywhere.

    Sequences may differ in how many sources are active, and memory with it: this is the most that any needs.
    """

    engine: ForwardModeEngine
    needs_graph = False
    reserved_bytes = 0

    def truncated(self) -> "_OnePass":
        """Itself."""
        return self

    def gather(self, sums: Sums) -> Whole:
        """The whole batch."""
        return Whole(self, sums)

    def add_(self, sums: Sums, capture: Capture, ci: Mapping[str, Float[Tensor, "batch seq _"]]) -> None:
        """Add a part of the attributions of one batch."""
        active = {layer: torch.ones_like(values) for layer, values in ci.items()}
        self.engine.add_passes_(sums, capture, active, first_only=True)


class _Sequence:
    """One sequence of a captured batch, in the dtype of the model."""

    def __init__(self, model: DecomposedModel, capture: Capture, ci: Mapping[str, Tensor], row: int) -> None:
        self.model = model
        self.capture = capture
        self.ci = ci
        self.row = row
        self.tokens = capture.tokens[row]
        self._embeddings = self._values(capture.embed)

    def _values(self, batch: Float[Tensor, "batch seq width"]) -> Float[Tensor, "seq width"]:
        return batch[self.row].detach().to(self.model.dtype)

    @cached_property
    def paths(self) -> DirectPaths:
        """All direct paths of the sequence."""
        post = self.capture.post
        outputs = {layer: self.model.components(layer).write(self._values(values)) for layer, values in post.items()}
        return DirectPaths(self.model, self.tokens, {EMBED: self._embeddings, **outputs})

    def tangents(self, group: _Group) -> Tangents:
        """Tangents of the output of a group's source layer."""
        if group.source == EMBED:
            return Tangents.of_tokens(self._embeddings, self.tokens, one_source_each=group.mixes)
        weights = self._values(self.capture.post[group.source]) * self._values(self.ci[group.source])
        write = self.model.components(group.source).U.to(self.model.dtype)
        return Tangents.of_components(write, weights, one_source_each=group.mixes)

    def readers(self, target: str, columns: Int[Tensor, " target"]) -> Readers:
        """The components of a layer that are targets."""
        sign = self._values(self.capture.pre[target])[:, columns].sign()
        return Readers(self.model.components(target).V[:, columns].to(self.model.dtype), sign)
